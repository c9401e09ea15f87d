// Package docker serves docker's Engine API for the one container of a guest, so far as
// it makes sense for one that a launch spec fixes: looking at it, executing in it,
// copying, stopping it. What it serves, to whom, and how it differs from docker's
// daemon is in docs/spec/docker.md.
//
// It is given connections whose client is known, and asks for each operation whether
// that client may have it. It does not find out who is at the other end.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
)

// The versions of the API that are spoken. Older clients are refused, newer ones
// settle for this one.
const (
	newestMinor = 50 // 1.50, docker 28.2
	oldestMinor = 41 // 1.41, docker 20.10
)

// Bounds of what a client may ask for.
const (
	maxHeader     = 32 << 10 // bytes
	maxBody       = 64 << 10 // bytes, but for an archive
	headerTimeout = 15 * time.Second
	idleTimeout   = 2 * time.Minute
)

// State is what the container is doing.
type State struct {
	Running           bool // or about to be started again
	Restarting        bool
	Started, Finished time.Time
	Exit              int  // status of the last run
	Exits             int  // how many runs have ended
	Restarts          int  // how many runs began after another
	Over              bool // it is not started again
	Health            *api.Health
}

// Engine is the guest that the container runs in. Its methods are called by many
// goroutines.
type Engine interface {
	// State also returns a channel that is closed when the state is another.
	State() (State, <-chan struct{})
	// Workload is the container's first process, and nil where none runs.
	Workload() *container.Process
	// Log is the workload's output over all runs.
	Log() *container.Log
	Stats() (container.Stats, error)
	Processes() ([]container.ProcessInfo, error)
	Exec(container.Exec) (*container.Process, error)
	Archive(container.Archive) (*container.Process, error)
	// Signal sends a signal to the workload. One that is to end it also keeps it from
	// being started again.
	Signal(unix.Signal) error
	// Stop ends the workload for good, with the signal (0: the spec's) first and SIGKILL
	// after the grace. It does not wait.
	Stop(sig unix.Signal, grace time.Duration)
}

// ErrNotRunning is what an Engine says that has no process to do it with.
var ErrNotRunning = errors.New("the container does not run")

// Server serves the API.
type Server struct {
	engine Engine
	spec   pod.Spec
	id     string // the container's: the launch spec's digest
	name   string
	decide func(client pod.Access, op pod.Operation) bool

	mux     *http.ServeMux
	http    *http.Server
	conns   *queue
	ctx     context.Context //nolint:containedctx // ends what goes on without end
	cancel  context.CancelFunc
	streams sync.WaitGroup // connections that are no longer http's
	stdin   chan struct{}  // held by who is attached to the workload's input
	events  *container.Log
	execs   execs
}

// New returns a server for the container of a launch spec with that digest. decide says
// whether a client may have an operation, and is asked once for each request.
func New(e Engine, spec pod.Spec, digest pod.Hash, decide func(pod.Access, pod.Operation) bool) *Server {
	s := &Server{
		engine: e, spec: spec, id: digest.String(), name: spec.Network.Hostname, decide: decide,
		mux: http.NewServeMux(), conns: newQueue(),
		stdin: make(chan struct{}, 1), events: container.NewLog(maxEvents),
		execs: execs{byID: map[string]*execution{}},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.routes()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:           s,
		Protocols:         protocols,
		ConnContext:       withClient,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	return s
}

// Serve serves the connections that are handed over, until Shutdown.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.conns); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Hand hands over a connection and who is at its other end. It is closed by the server.
func (s *Server) Hand(conn net.Conn, client pod.Access) { s.conns.push(&known{conn, client}) }

// Shutdown ends what goes on without end, and waits for the rest as long as ctx.
func (s *Server) Shutdown(ctx context.Context) {
	s.cancel()
	_ = s.http.Shutdown(ctx) // what it leaves ends with the guest
	done := make(chan struct{})
	go func() { s.streams.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// known is a connection with its client.
type known struct {
	net.Conn
	client pod.Access
}

type clientKey struct{}

func withClient(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, conn.(*known).client)
}

// queue is a listener of connections that are handed over.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), done: make(chan struct{})} }

func (q *queue) push(conn net.Conn) {
	select {
	case q.conns <- conn:
	case <-q.done:
		conn.Close()
	}
}

// Accept waits for the next connection.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close ends the listening.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr is no address of a network.
func (q *queue) Addr() net.Addr { return &net.UnixAddr{Name: "docker", Net: "unix"} }

// A call is one request.
type call struct {
	w      http.ResponseWriter
	r      *http.Request
	client pod.Access
	minor  int // of the API's version
}

type minorKey struct{}

// An apiError is a request's failure as docker's clients get it.
type apiError struct {
	status  int
	message string
}

// Error returns the message.
func (e *apiError) Error() string { return e.message }

func failure(status int, format string, args ...any) *apiError {
	return &apiError{status, fmt.Sprintf(format, args...)}
}

// routes are the operations, and what a client must be allowed of for each: one of
// them is enough. To those without any, each client that is named is entitled.
func (s *Server) routes() {
	for _, route := range []struct {
		pattern string
		ops     []pod.Operation
		do      func(*call) error
	}{
		{"GET /_ping", nil, s.ping},
		{"GET /version", nil, s.version},
		{"GET /info", nil, s.info},
		{"GET /containers/json", []pod.Operation{pod.OpDockerPS, pod.OpDockerStats}, s.list},
		{"GET /containers/{name}/json", nil, s.inspect}, // it decides itself
		{"GET /containers/{name}/logs", []pod.Operation{pod.OpDockerLogs}, s.logs},
		{"GET /containers/{name}/top", []pod.Operation{pod.OpDockerTop}, s.top},
		{"GET /containers/{name}/stats", []pod.Operation{pod.OpDockerStats}, s.stats},
		{"GET /containers/{name}/archive", []pod.Operation{pod.OpDockerCopy}, s.pack},
		{"PUT /containers/{name}/archive", []pod.Operation{pod.OpDockerCopy}, s.unpack},
		{"POST /containers/{name}/attach", []pod.Operation{pod.OpDockerAttach}, s.attach},
		{"POST /containers/{name}/resize", []pod.Operation{pod.OpDockerAttach}, s.resize},
		{"POST /containers/{name}/exec", []pod.Operation{pod.OpDockerExec}, s.execCreate},
		{"POST /containers/{name}/stop", []pod.Operation{pod.OpDockerStop}, s.stop},
		{"POST /containers/{name}/kill", []pod.Operation{pod.OpDockerKill}, s.kill},
		{"POST /containers/{name}/wait", []pod.Operation{pod.OpDockerWait, pod.OpDockerAttach}, s.wait},
		{"GET /exec/{id}/json", []pod.Operation{pod.OpDockerExec}, s.execInspect},
		{"POST /exec/{id}/start", []pod.Operation{pod.OpDockerExec}, s.execStart},
		{"POST /exec/{id}/resize", []pod.Operation{pod.OpDockerExec}, s.execResize},
		{"GET /events", []pod.Operation{pod.OpDockerEvents, pod.OpDockerStats}, s.follow},
		{"/", nil, func(*call) error { return failure(http.StatusNotFound, "page not found") }},
	} {
		s.mux.HandleFunc(route.pattern, func(w http.ResponseWriter, r *http.Request) {
			client, _ := r.Context().Value(clientKey{}).(pod.Access)
			minor, _ := r.Context().Value(minorKey{}).(int)
			c := &call{w, r, client, minor}
			answer(c, s.serve(c, route.ops, route.do))
		})
	}
}

// serve does what is asked for, if it is allowed.
func (s *Server) serve(c *call, ops []pod.Operation, do func(*call) error) error {
	if len(ops) > 0 {
		op := ops[0]
		for _, other := range ops {
			if c.client.Allows(other) {
				op = other
				break
			}
		}
		if !s.decide(c.client, op) {
			return failure(http.StatusForbidden, "the launch spec does not allow this key %s", op)
		}
	}
	if name := c.r.PathValue("name"); name != "" && !s.named(name) {
		return failure(http.StatusNotFound, "No such container: %.100s", name)
	}
	return do(c)
}

// named says whether the container is called so: by its name, its ID or the ID's
// beginning.
func (s *Server) named(name string) bool {
	name = strings.TrimPrefix(name, "/")
	return name == s.name || name != "" && strings.HasPrefix(s.id, name)
}

// answer tells the client what failed, if anything did.
func answer(c *call, err error) {
	if err == nil {
		return
	}
	status := http.StatusInternalServerError
	if apiErr, ok := errors.AsType[*apiError](err); ok {
		status = apiErr.status
	} else if errors.Is(err, ErrNotRunning) {
		status = http.StatusConflict
	}
	c.w.Header().Del("Content-Length")
	c.json(status, map[string]string{"message": err.Error()})
}

// json answers with a value. Whoever asked may be gone.
func (c *call) json(status int, v any) {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	_ = json.NewEncoder(c.w).Encode(v)
}

// body reads the request's value.
func (c *call) body(v any) error {
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(headerTimeout))
	data, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		return failure(http.StatusBadRequest, "reading the request: %v", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return failure(http.StatusBadRequest, "request: %v", err)
	}
	return http.NewResponseController(c.w).SetReadDeadline(time.Time{})
}

// flag reads a parameter that is true or false, by docker's rules.
func (c *call) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(c.r.FormValue(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// integer reads a parameter that is a number, or missing.
func (c *call) integer(name string, missing int) (int, error) {
	text := c.r.FormValue(name)
	if text == "" {
		return missing, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, failure(http.StatusBadRequest, "%s: %.40q is not a number", name, text)
	}
	return n, nil
}

// filters reads what docker's clients send to narrow a list: sets of values by name.
// Clients before 1.22 sent arrays, and are not served.
func (c *call) filters(names ...string) (map[string]map[string]bool, error) {
	text := c.r.FormValue("filters")
	if text == "" {
		return nil, nil
	}
	var all map[string]map[string]bool
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, failure(http.StatusBadRequest, "filters: %v", err)
	}
	for name := range all {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known {
			return nil, failure(http.StatusBadRequest, "invalid filter '%.40s'", name)
		}
	}
	return all, nil
}

// versioned is a path with the API's version before it.
var versioned = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^/v([0-9]{1,3})\.([0-9]{1,3})(/.*)$`) })

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", fmt.Sprintf("1.%d", newestMinor))
	w.Header().Set("Ostype", "linux")
	minor := newestMinor
	if m := versioned().FindStringSubmatch(r.URL.Path); m != nil {
		major, _ := strconv.Atoi(m[1])
		minor, _ = strconv.Atoi(m[2])
		if major != 1 || minor < oldestMinor || minor > newestMinor {
			answer(&call{w: w, r: r}, failure(http.StatusBadRequest, "client version %d.%d: this guest speaks 1.%d to 1.%d", major, minor, oldestMinor, newestMinor))
			return
		}
		r.URL.Path, r.URL.RawPath = m[3], ""
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), minorKey{}, minor)))
}

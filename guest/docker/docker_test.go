package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
)

// engine is a guest without processes.
type engine struct {
	mu      sync.Mutex
	state   State
	changed chan struct{}
	log     *container.Log
	did     []string
}

func newEngine() *engine {
	return &engine{
		state: State{Running: true, Started: time.Now()}, changed: make(chan struct{}), log: container.NewLog(1 << 20),
	}
}

func (e *engine) State() (State, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state, e.changed
}

func (e *engine) set(do func(*State)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do(&e.state)
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *engine) do(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did = append(e.did, fmt.Sprintf(format, args...))
}

func (e *engine) Workload() *container.Process { return nil }
func (e *engine) Log() *container.Log          { return e.log }
func (e *engine) Stats() (container.Stats, error) {
	return container.Stats{Memory: 5 << 20, Pids: 3, CPUMicroseconds: 7, GuestMicroseconds: 70}, nil
}

func (e *engine) Processes() ([]container.ProcessInfo, error) {
	return []container.ProcessInfo{{PID: 1, UID: 5, State: 'S', Ticks: 12345, Name: "p", Args: []string{"/p", "-a"}}, {PID: 2, Parent: 1, Name: "k", Terminal: true}}, nil
}

func (e *engine) Exec(container.Exec) (*container.Process, error) { return nil, ErrNotRunning }

func (e *engine) Archive(container.Archive) (*container.Process, error) { return nil, ErrNotRunning }

func (e *engine) Signal(sig unix.Signal) error {
	if state, _ := e.State(); !state.Running {
		return ErrNotRunning
	}
	e.do("signal %d", sig)
	return nil
}

func (e *engine) Stop(sig unix.Signal, grace time.Duration) {
	e.do("stop %d %v", sig, grace)
	e.set(func(s *State) { s.Running, s.Over, s.Exit, s.Exits = false, true, 9, 1 })
}

func testSpec() pod.Spec {
	return pod.Spec{
		Image:   pod.Image{Reference: "registry/app:1", Digest: "sha256:" + strings.Repeat("1", 64), Volumes: []string{"/data"}},
		Process: pod.Process{Args: []string{"/p", "-a"}, Env: []string{"SECRET=1"}, WorkingDir: "/w", User: "app", Capabilities: []string{"CAP_KILL"}, StopSignal: "SIGQUIT", StopTimeout: 4},
		Network: pod.Network{Hostname: "box", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24")}},
		Ports:   []pod.Port{{Port: 80, Protocol: "tcp"}},
		Mounts:  []pod.Mount{{Type: pod.MountVolume, Target: "/db", Name: "db"}},
		Restart: &pod.Restart{Policy: pod.RestartOnFailure, MaximumRetries: 3},
	}
}

var digest = pod.Hash{0xab, 0xcd}

// everything is a client of whom nothing is kept.
func everything() pod.Access { return pod.Access{Key: pod.Hash{1}, Allow: pod.Operations} }

// start serves, and returns a way to ask.
func start(t testing.TB, e Engine) (s *Server, dial func(pod.Access) net.Conn) {
	t.Helper()
	s = New(e, testSpec(), digest, func(client pod.Access, op pod.Operation) bool { return client.Allows(op) })
	go func() { _ = s.Serve() }()
	t.Cleanup(func() { shutdown(t, s) })
	return s, func(client pod.Access) net.Conn {
		t.Helper()
		near, far := pair(t)
		s.Hand(far, client)
		return near
	}
}

func shutdown(t testing.TB, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.Shutdown(ctx)
	if ctx.Err() != nil {
		t.Error("something goes on")
	}
}

// pair is a connection's two ends.
func pair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return near, far
}

// ask sends one request on a connection of its own, and returns status and body.
func ask(t testing.TB, conn net.Conn, request string) (int, string) {
	t.Helper()
	resp := send(t, conn, request)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func send(t testing.TB, conn net.Conn, request string) *http.Response {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	go fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", request)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	return resp
}

// What is asked for, and what is answered.
func TestRequests(t *testing.T) {
	e := newEngine()
	e.log.Append(container.Stdout, []byte("one\ntwo\n"))
	_, dial := start(t, e)
	nothing := pod.Access{Key: pod.Hash{2}, Allow: []pod.Operation{pod.OpDockerWait}}
	for _, tt := range []struct {
		client  pod.Access
		request string
		status  int
		says    string
	}{
		{everything(), "HEAD /_ping", 200, ""},
		{everything(), "GET /_ping", 200, "OK"},
		{everything(), "GET /v1.50/version", 200, `"ApiVersion":"1.50"`},
		{everything(), "GET /v1.41/version", 200, `"MinAPIVersion":"1.41"`},
		{everything(), "GET /v1.40/version", 400, "client version 1.40: this guest speaks 1.41 to 1.50"},
		{everything(), "GET /v1.51/version", 400, "client version 1.51"},
		{everything(), "GET /v2.45/version", 400, "client version 2.45"},
		{everything(), "GET /v1.050/version", 200, "ApiVersion"},
		{everything(), "GET /v1.9999/version", 404, "page not found"},
		{everything(), "GET /images/json", 404, "page not found"},
		{everything(), "POST /containers/create", 404, "page not found"},
		{everything(), "DELETE /containers/box", 404, "page not found"},
		{everything(), "GET /containers/json", 200, `"Names":["/box"]`},
		{everything(), "GET /containers/json?filters=%7B%22name%22:%7B%22%5Ebox$%22:true%7D%7D", 200, `"State":"running"`},
		{everything(), "GET /containers/json?filters=%7B%22name%22:%7B%22ox%22:true%7D%7D", 200, `"State":"running"`},
		{everything(), "GET /containers/json?filters=%7B%22name%22:%7B%22%5Eox%22:true%7D%7D", 200, `[]`},
		{everything(), "GET /containers/json?filters=%7B%22status%22:%7B%22exited%22:true%7D%7D", 200, `[]`},
		{everything(), "GET /containers/json?filters=%7B%22id%22:%7B%22abcd%22:true%7D%7D", 200, `abcd0000`},
		{everything(), "GET /containers/json?filters=%7B%22label%22:%7B%22a%22:true%7D%7D", 400, "invalid filter 'label'"},
		{everything(), "GET /containers/json?filters=x", 400, "filters: "},
		{everything(), "GET /containers/abcd/json", 200, `"Id":"abcd0000`},
		{everything(), "GET /containers/abcd1/json", 404, "No such container: abcd1"},
		{everything(), "GET /containers/other/logs?stdout=1", 404, "No such container"},
		{everything(), "GET /containers/box/logs?stdout=1", 200, "one\ntwo"},
		{everything(), "GET /containers/box/logs", 400, "at least one stream"},
		{everything(), "GET /containers/box/logs?stdout=1&tail=-1", 400, "tail"},
		{everything(), "GET /containers/box/logs?stdout=1&tail=x", 400, "tail"},
		{everything(), "GET /containers/box/logs?stdout=1&since=x", 400, "since"},
		{everything(), "GET /containers/box/logs?stdout=1&until=1.0000000001", 400, "until"},
		{everything(), "GET /containers/box/logs?stdout=1&until=1.5", 200, ""},
		{everything(), "GET /containers/box/top", 200, `["5","1","0","`},
		{everything(), "GET /containers/box/top?ps_args=aux", 200, `"00:02:03","/p -a"]`},
		{everything(), "GET /containers/box/top?ps_args=-o+pid", 400, "ps_args"},
		{everything(), "GET /containers/box/stats?stream=0&one-shot=1", 200, `"usage":5242880`},
		{everything(), "GET /containers/box/archive?path=/etc", 409, "does not run"},
		{everything(), "GET /containers/box/archive", 400, "path: missing"},
		{everything(), "GET /containers/box/archive?path=" + strings.Repeat("a", maxPath+1), 400, "path: missing, longer"},
		{everything(), "PUT /containers/box/archive?path=/e%00", 400, "NUL"},
		{everything(), "POST /containers/box/attach?stream=1&stdout=1", 409, "does not run"},
		{everything(), "POST /containers/box/resize?h=1&w=x", 400, "no number of columns"},
		{everything(), "POST /containers/box/resize?h=70000&w=1", 400, "no number of rows"},
		{everything(), "POST /containers/box/exec", 400, "request: "},
		{everything(), "POST /exec/none/start", 404, "No such exec instance: none"},
		{everything(), "GET /exec/none/json", 404, "No such exec instance"},
		{everything(), "POST /containers/box/kill?signal=NONE", 400, "invalid signal: NONE"},
		{everything(), "POST /containers/box/kill?signal=65", 400, "invalid signal: 65"},
		{everything(), "POST /containers/box/kill?signal=0", 400, "invalid signal: 0"},
		{everything(), "POST /containers/box/stop?t=x", 400, "is not a number"},
		{everything(), "POST /containers/box/stop?t=99999999999", 400, "too many seconds"},
		{everything(), "POST /containers/box/stop?signal=x", 400, "invalid signal"},
		{everything(), "POST /containers/box/wait?condition=x", 400, "invalid condition"},
		{everything(), "GET /events?since=x", 400, "since"},
		{everything(), "GET /events?filters=%7B%22a%22:%7B%7D%7D", 400, "invalid filter 'a'"},
		{everything(), "GET /events?until=1", 200, ""},

		{nothing, "GET /_ping", 200, "OK"},
		{nothing, "GET /containers/json", 403, "does not allow this key docker.ps"},
		{nothing, "GET /containers/box/logs?stdout=1", 403, "docker.logs"},
		{nothing, "GET /containers/box/top", 403, "docker.top"},
		{nothing, "GET /containers/box/stats", 403, "docker.stats"},
		{nothing, "GET /containers/box/archive?path=/", 403, "docker.cp"},
		{nothing, "PUT /containers/box/archive?path=/", 403, "docker.cp"},
		{nothing, "POST /containers/box/attach", 403, "docker.attach"},
		{nothing, "POST /containers/box/resize", 403, "docker.attach"},
		{nothing, "POST /containers/box/exec", 403, "docker.exec"},
		{nothing, "POST /exec/none/start", 403, "docker.exec"},
		{nothing, "POST /containers/box/stop", 403, "docker.stop"},
		{nothing, "POST /containers/box/kill", 403, "docker.kill"},
		{nothing, "GET /events", 403, "docker.events"},
	} {
		status, body := ask(t, dial(tt.client), tt.request)
		if status != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s: %d %s, want %d %s", tt.request, status, body, tt.status, tt.says)
		}
		if status >= 400 {
			var message struct{ Message string }
			if err := json.Unmarshal([]byte(body), &message); err != nil || message.Message == "" {
				t.Errorf("%s: %q is no error of docker's", tt.request, body)
			}
		}
	}
	if e.did != nil {
		t.Errorf("the engine did %q", e.did)
	}
}

// Who may not inspect sees what docker's client needs before other commands, and no more.
func TestInspect(t *testing.T) {
	_, dial := start(t, newEngine())
	inspect := func(ops ...pod.Operation) api.InspectResponse {
		t.Helper()
		status, body := ask(t, dial(pod.Access{Allow: ops}), "GET /containers/box/json")
		var got api.InspectResponse
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		return got
	}
	got := inspect(pod.OpDockerLogs)
	got.State.StartedAt = ""
	want := api.InspectResponse{
		ID: digest.String(), Name: "/box", Platform: "linux", HostConfig: &api.HostConfig{},
		State:  &api.State{Status: "running", Running: true, FinishedAt: time.Time{}.Format(time.RFC3339)},
		Config: &api.Config{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("without docker.inspect (-want +got):\n%s", diff)
	}
	got = inspect(pod.OpDockerInspect)
	if got.Path != "/p" || got.Config.User != "app" || *got.Config.StopTimeout != 4 || got.HostConfig.RestartPolicy.MaximumRetryCount != 3 ||
		got.HostConfig.CapAdd[0] != "CAP_KILL" || got.Mounts[0].Destination != "/db" || len(got.NetworkSettings.Ports) != 1 ||
		got.NetworkSettings.Networks["guest"].IPAddress.String() != "10.0.2.15" {
		t.Errorf("with it: %+v", got)
	}
}

// The log comes as it was written, in frames, and follows what is written.
func TestLogs(t *testing.T) {
	e := newEngine()
	began := time.Now()
	e.log.Append(container.Stdout, []byte("one\ntw"))
	e.log.Append(container.Stderr, []byte("err\n"))
	e.log.Append(container.Stdout, []byte("o\nthree\nprompt"))
	_, dial := start(t, e)
	frame := func(stream byte, text string) string {
		return string([]byte{stream, 0, 0, 0, 0, 0, 0, byte(len(text))}) + text
	}
	for request, want := range map[string]string{
		"stdout=1&stderr=1":        frame(1, "one\ntw") + frame(2, "err\n") + frame(1, "o\nthree\nprompt"),
		"stderr=1":                 frame(2, "err\n"),
		"stdout=1&tail=0":          "",
		"stdout=1&tail=1":          frame(1, "prompt"),
		"stdout=1&tail=2":          frame(1, "three\nprompt"),
		"stdout=1&tail=3":          frame(1, "tw") + frame(1, "o\nthree\nprompt"),
		"stdout=1&stderr=1&tail=3": frame(1, "tw") + frame(1, "o\nthree\nprompt"),
		"stdout=1&stderr=1&tail=4": frame(1, "tw") + frame(2, "err\n") + frame(1, "o\nthree\nprompt"),
		"stdout=1&tail=9":          frame(1, "one\ntw") + frame(1, "o\nthree\nprompt"),
		fmt.Sprintf("stdout=1&since=%d", began.Unix()+100):                "",
		fmt.Sprintf("stdout=1&tail=1&since=%d.5", began.Unix()-100):       frame(1, "prompt"),
		fmt.Sprintf("stdout=1&follow=1&until=%d&tail=1", began.Unix()-50): "",
	} {
		resp := send(t, dial(everything()), "GET /containers/box/logs?"+request)
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.Header.Get("Content-Type") != multiplexedStream {
			t.Errorf("%s: %v, %s", request, err, resp.Header.Get("Content-Type"))
		}
		if diff := cmp.Diff(want, strings.TrimPrefix(string(body), "\x01\x00\x00\x00\x00\x00\x00\x00")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", request, diff)
		}
	}
	resp := send(t, dial(everything()), "GET /v1.41/containers/box/logs?stdout=1&timestamps=1&tail=3")
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Header.Get("Content-Type") != rawStream {
		t.Errorf("%v, %s", err, resp.Header.Get("Content-Type"))
	}
	for _, want := range []string{"Z tw", "o\n2", "Z three\n2", "Z prompt"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("with times %q has no %q", body, want)
		}
	}
	follow := send(t, dial(everything()), "GET /containers/box/logs?stdout=1&follow=1&tail=0")
	go func() {
		time.Sleep(20 * time.Millisecond)
		e.log.Append(container.Stdout, []byte("later"))
		e.log.End()
	}()
	if body, err := io.ReadAll(follow.Body); err != nil || string(body) != frame(1, "later") {
		t.Errorf("what follows is %q, %v", body, err)
	}
}

// Docker's client tells a reader that was too slow what it lost, and holds up no one.
func TestSlowReader(t *testing.T) {
	e := newEngine()
	_, dial := start(t, e)
	conn := dial(everything())
	resp := send(t, conn, "GET /containers/box/logs?stdout=1&stderr=1&follow=1")
	for range 3000 { // nobody reads
		e.log.Append(container.Stdout, bytes.Repeat([]byte("x"), 1<<10))
	}
	e.log.End()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(body, []byte("bytes of output were dropped: this reader was too slow")) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

func TestEnd(t *testing.T) {
	e := newEngine()
	s, dial := start(t, e)
	events := send(t, dial(everything()), "GET /events?filters=%7B%22event%22:%7B%22stop%22:true,%22kill%22:true%7D%7D")
	wait := send(t, dial(everything()), "POST /containers/box/wait?condition=removed")
	next := send(t, dial(everything()), "POST /containers/box/wait?condition=next-exit")
	if status, _ := ask(t, dial(everything()), "POST /containers/box/kill?signal=usr1"); status != 204 {
		t.Error(status)
	}
	e.set(func(s *State) { s.Exits, s.Exit, s.Restarting = 1, 5, true })
	if body, _ := io.ReadAll(next.Body); string(body) != "{\"StatusCode\":5}\n" {
		t.Errorf("the next exit is %s", body)
	}
	if _, body := ask(t, dial(everything()), "GET /containers/json"); !strings.Contains(body, "Restarting (5)") {
		t.Error(body)
	}
	if status, body := ask(t, dial(everything()), "POST /containers/box/stop?signal=15"); status != 204 {
		t.Error(status, body)
	}
	if body, _ := io.ReadAll(wait.Body); string(body) != "{\"StatusCode\":9}\n" {
		t.Errorf("the end is %s", body)
	}
	for request, want := range map[string]int{
		"POST /containers/box/stop": 304, "POST /containers/box/kill": 409, "POST /containers/box/exec": 400, "GET /containers/box/top": 409,
	} {
		if status, body := ask(t, dial(everything()), request); status != want {
			t.Errorf("%s after the end: %d %s", request, status, body)
		}
	}
	if status, body := ask(t, dial(everything()), "POST /containers/box/wait"); status != 200 || body != `{"StatusCode":9}` {
		t.Errorf("%d %s", status, body)
	}
	if diff := cmp.Diff([]string{"signal 10", "stop 15 4s"}, e.did); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	shutdown(t, s)
	body, _ := io.ReadAll(events.Body)
	for _, want := range []string{`"Action":"kill"`, `"signal":"10"`, `"Action":"stop"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("events %s have no %s", body, want)
		}
	}
}

// Only who created a process may start it, and no more than so many are kept.
func TestExecs(t *testing.T) {
	var all execs
	all.byID = map[string]*execution{}
	add := func(id string, running bool) error {
		return all.add(&execution{id: id, owner: pod.Hash{1}, started: running})
	}
	for i := range maxExecs {
		if err := add(fmt.Sprint(i), i != 7); err != nil {
			t.Fatal(err)
		}
	}
	if err := add("more", true); err != nil || all.byID["7"] != nil || len(all.ids) != maxExecs {
		t.Errorf("%v, %d are kept", err, len(all.ids))
	}
	if err := add("too many", true); err == nil || all.byID["too many"] != nil {
		t.Error("there is no bound")
	}
	find := func(id string, key pod.Hash) error {
		r, _ := http.NewRequest(http.MethodGet, "/", nil)
		r.SetPathValue("id", id)
		_, err := all.find(&call{r: r, client: pod.Access{Key: key}})
		return err
	}
	if err := find("more", pod.Hash{1}); err != nil {
		t.Error(err)
	}
	if err := find("more", pod.Hash{2}); err == nil {
		t.Error("another client finds it")
	}
}

// Whatever the bytes, a request has an answer, and the next one too.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/v1.50/containers/box/logs?stdout=1&tail=3&since=1.5", "")
	f.Add("POST", "/containers/box/exec", `{"Cmd":["a"]}`)
	f.Add("GET", "/events?until=1&filters=%7B%22type%22:%7B%22container%22:true%7D%7D", "")
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequest(method, target, strings.NewReader(body))
		if err != nil || !strings.HasPrefix(r.URL.Path, "/") || strings.Contains(target, "follow") || strings.Contains(target, "events") || strings.Contains(target, "stats") {
			t.Skip()
		}
		e := newEngine()
		e.set(func(s *State) { s.Running, s.Over = false, true })
		e.log.Append(container.Stdout, []byte("a\nb"))
		e.log.End()
		s := New(e, testSpec(), digest, func(client pod.Access, op pod.Operation) bool { return client.Allows(op) })
		near, far := pair(t)
		go func() { _ = s.Serve() }()
		defer shutdown(t, s)
		s.Hand(far, everything())
		_ = near.SetDeadline(time.Now().Add(10 * time.Second))
		go func() { _ = r.Write(near) }()
		resp, err := http.ReadResponse(bufio.NewReader(near), r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	})
}

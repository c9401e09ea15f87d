package guest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/docker"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/splice"
)

// serveDocker serves docker's API to the clients that the spec names.
func (a *agent) serveDocker(c *channel) {
	a.docker = docker.New(engine{a}, a.spec, a.digest, func(client pod.Access, op pod.Operation) bool {
		place := slices.IndexFunc(a.spec.Access, func(other pod.Access) bool { return other.Key == client.Key })
		allowed := client.Allows(op)
		a.events.decided(place, op, allowed)
		return allowed
	})
	a.task.tell(a.docker.Notify)
	a.beside("docker's API", a.docker.Serve)
	c.mux.Handle("GET "+port.DockerPath, c.known.only(func(w http.ResponseWriter, r *http.Request, client pod.Access) {
		upgradeDocker(w, r, c.gate, func(conn net.Conn) { a.docker.Hand(conn, client) })
	}))
}

// upgradeDocker hands a connection over that asks to be one of docker's API.
func upgradeDocker(w http.ResponseWriter, r *http.Request, g *gate, hand func(net.Conn)) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), port.DockerProtocol) || r.ContentLength != 0 {
		w.Header().Set("Upgrade", port.DockerProtocol)
		http.Error(w, "want an upgrade to "+port.DockerProtocol, http.StatusUpgradeRequired)
		return
	}
	under, _ := r.Context().Value(connKey{}).(*gated)
	if under == nil || !under.is(g.clients) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many connections of clients at a time", http.StatusServiceUnavailable)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "no API from here", http.StatusInternalServerError)
		return
	}
	err = conn.SetDeadline(time.Time{})
	if err == nil {
		_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", port.DockerProtocol)
	}
	if err != nil {
		conn.Close()
		return
	}
	hand(closing{splice.Buffered(conn, buffered.Reader), under})
}

// closing is a TLS connection that says when the other end has closed what is under it.
type closing struct {
	net.Conn
	under net.Conn
}

// AwaitClose waits for that. The other end has said before that nothing more comes.
func (c closing) AwaitClose() {
	_, _ = c.under.Read(make([]byte, 1))
}

// CloseWrite says that nothing more comes.
func (c closing) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// dockerLinger is what clients have to hear of the end, before the guest is off.
const dockerLinger = 2 * time.Second

// endDocker lets clients hear of the end.
func (a *agent) endDocker() {
	if a.docker == nil {
		return
	}
	if a.exit == nil {
		a.task.change(func(s *taskState) { s.Running, s.Restarting, s.Over = false, false, true })
		a.output.log.End()
	}
	ctx, cancel := context.WithTimeout(context.Background(), dockerLinger)
	defer cancel()
	a.docker.Shutdown(ctx)
}

// engine is the guest as docker's API sees it.
type engine struct{ *agent }

// State is the task's.
func (e engine) State() (docker.State, <-chan struct{}) {
	t := e.task
	t.mu.Lock()
	defer t.mu.Unlock()
	s := docker.State{
		Running: t.state.Running || t.state.Restarting, Restarting: t.state.Restarting,
		Started: t.state.Started, Finished: t.state.Finished,
		Exit: t.state.Exit, Exits: t.state.Exits, Restarts: t.state.Restarts, Over: t.state.Over,
	}
	if h := t.state.Health; h.Status != "" {
		s.Health = &api.Health{Status: api.HealthStatus(h.Status), FailingStreak: h.Failures}
		for _, p := range h.Log {
			s.Health.Log = append(s.Health.Log, &api.HealthcheckResult{Start: p.Began, End: p.Ended, ExitCode: p.Exit, Output: p.Output})
		}
	}
	return s, t.changed
}

// Workload is the container's first process.
func (e engine) Workload() *container.Process {
	if c := e.task.current(); c != nil {
		return c.Process
	}
	return nil
}

// Log is the workload's output.
func (e engine) Log() *container.Log { return e.output.log }

// Stats is what the container uses.
func (e engine) Stats() (container.Stats, error) { return container.ReadStats(e.task.folder()) }

// Processes are the container's.
func (e engine) Processes() ([]container.ProcessInfo, error) {
	return container.Processes(e.task.folder())
}

// Exec executes a further process.
func (e engine) Exec(x container.Exec) (*container.Process, error) { return e.task.exec(x) }

// Archive reads or writes an archive of the container's files.
func (e engine) Archive(x container.Archive) (*container.Process, error) {
	c := e.task.current()
	if c == nil {
		return nil, docker.ErrNotRunning
	}
	return c.Archive(x)
}

// Signal sends a signal: with SIGKILL or the spec's stop signal, docker wants the end.
func (e engine) Signal(sig unix.Signal) error {
	if sig == unix.SIGKILL || sig == e.stop {
		return e.task.kill(sig)
	}
	return e.task.signal(sig)
}

// Stop ends the workload for good.
func (e engine) Stop(sig unix.Signal, grace time.Duration) {
	select {
	case e.task.stops <- stopRequest{sig, grace}:
	default: // it was asked for just now
	}
}

package docker

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
)

// maxExecs is how many further processes are remembered, and so how many can run at a
// time for clients.
const maxExecs = 64

// execution is one further process: as a client wants it, running, or ended.
type execution struct {
	id      string
	owner   pod.Hash // whose client created it: to others it does not exist
	request api.ExecCreateRequest

	mu      sync.Mutex
	started bool
	process *container.Process // once it was executed
	exit    *int               // once it has ended
}

// execs are those that are remembered.
type execs struct {
	mu   sync.Mutex
	byID map[string]*execution
	ids  []string // oldest first
}

// add remembers a process, and forgets the oldest that does not run if there is no room.
func (e *execs) add(x *execution) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ids) == maxExecs {
		i := 0
		for i < len(e.ids) && e.byID[e.ids[i]].running() {
			i++
		}
		if i == len(e.ids) {
			return failure(http.StatusConflict, "%d processes of clients run: that is the most", maxExecs)
		}
		delete(e.byID, e.ids[i])
		e.ids = append(e.ids[:i:i], e.ids[i+1:]...)
	}
	e.byID[x.id] = x
	e.ids = append(e.ids, x.id)
	return nil
}

// find returns a client's own process.
func (e *execs) find(c *call) (*execution, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.byID[c.r.PathValue("id")]
	if x == nil || x.owner != c.client.Key {
		return nil, failure(http.StatusNotFound, "No such exec instance: %.100s", c.r.PathValue("id"))
	}
	return x, nil
}

func (x *execution) running() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.started && x.exit == nil
}

func (x *execution) ended(exit int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.exit = &exit
}

// execCreate notes what a client wants to execute.
func (s *Server) execCreate(c *call) error {
	var request api.ExecCreateRequest
	if err := c.body(&request); err != nil {
		return err
	}
	switch {
	case len(request.Cmd) == 0:
		return failure(http.StatusBadRequest, "No exec command specified")
	case request.Privileged:
		return failure(http.StatusBadRequest, "Privileged: a further process has what the launch spec gives the container")
	case s.engine.Workload() == nil:
		return ErrNotRunning
	}
	id := make([]byte, 32)
	rand.Read(id)
	x := &execution{id: hex.EncodeToString(id), owner: c.client.Key, request: request}
	if err := s.execs.add(x); err != nil {
		return err
	}
	s.Notify(x.action(events.ActionExecCreate), map[string]string{"execID": x.id})
	c.json(http.StatusCreated, api.ExecCreateResponse{ID: x.id})
	return nil
}

// action is docker's name of an event with the command in it, cut where it is long.
func (x *execution) action(a events.Action) events.Action {
	command := strings.Join(x.request.Cmd, " ")
	return events.Action(string(a) + ": " + command[:min(len(command), 200)])
}

// execInspect tells of a client's process.
func (s *Server) execInspect(c *call) error {
	x, err := s.execs.find(c)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	c.json(http.StatusOK, api.ExecInspectResponse{
		ID: x.id, ContainerID: s.id, Running: x.started && x.exit == nil, ExitCode: x.exit, CanRemove: x.exit != nil,
		OpenStdin: x.request.AttachStdin, OpenStdout: x.request.AttachStdout, OpenStderr: x.request.AttachStderr,
		DetachKeys: []byte(x.request.DetachKeys),
		ProcessConfig: &api.ExecProcessConfig{
			Tty: x.request.Tty, User: x.request.User, Entrypoint: x.request.Cmd[0], Arguments: x.request.Cmd[1:],
		},
	})
	return nil
}

// execResize tells a process' terminal its size.
func (s *Server) execResize(c *call) error {
	x, err := s.execs.find(c)
	if err != nil {
		return err
	}
	rows, columns, err := c.size()
	if err != nil {
		return err
	}
	x.mu.Lock()
	process := x.process
	x.mu.Unlock()
	if process == nil {
		return failure(http.StatusConflict, "the process does not run")
	}
	if err := process.Resize(rows, columns); err != nil {
		return failure(http.StatusBadRequest, "%v", err)
	}
	return nil
}

// execStart executes a client's process, and joins the client with its streams.
func (s *Server) execStart(c *call) error {
	x, err := s.execs.find(c)
	if err != nil {
		return err
	}
	var request api.ExecStartRequest
	if err := c.body(&request); err != nil {
		return err
	}
	size := x.request.ConsoleSize
	if request.ConsoleSize != nil {
		size = request.ConsoleSize
	}
	if !x.begin() {
		return failure(http.StatusConflict, "the process was started before")
	}
	if request.Detach {
		process, err := s.execute(x, size)
		if err != nil {
			return failure(http.StatusBadRequest, "%v", err)
		}
		go s.attend(x, process, nil)
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	stream, err := s.hijack(c, x.request.Tty, x.request.DetachKeys)
	if err != nil {
		x.ended(container.ExitNotExecutable)
		return err
	}
	defer s.end(stream)
	process, err := s.execute(x, size)
	if err != nil {
		stream.write(container.Stderr, []byte(err.Error()+"\r\n")) // where docker says it
		return nil
	}
	done := make(chan struct{})
	go func() { defer close(done); s.attend(x, process, stream) }()
	select {
	case <-done:
	case <-stream.ctx.Done(): // the process goes on without its client, as docker's
	}
	return nil
}

func (x *execution) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	first := !x.started
	x.started = true
	return first
}

// execute executes the process. Where that fails it has ended.
func (s *Server) execute(x *execution, size *[2]uint) (*container.Process, error) {
	r := x.request
	e := container.Exec{
		Args: r.Cmd, Env: r.Env, User: r.User, WorkingDir: r.WorkingDir, Terminal: r.Tty, Stdin: r.AttachStdin,
	}
	if size != nil {
		e.Rows, e.Columns = uint16(min(size[0], 1<<16-1)), uint16(min(size[1], 1<<16-1))
	}
	process, err := s.engine.Exec(e)
	if err != nil {
		exit := container.ExitNotExecutable
		if execErr, ok := errors.AsType[*container.ExecError](err); ok {
			exit = execErr.Exit
		}
		x.ended(exit)
		return nil, err
	}
	x.mu.Lock()
	x.process = process
	x.mu.Unlock()
	s.Notify(x.action(events.ActionExecStart), map[string]string{"execID": x.id})
	return process, nil
}

// attend reads the process' output to its end and waits for the process. Without a
// client, and once it has detached or is gone, the output goes nowhere.
func (s *Server) attend(x *execution, process *container.Process, client *stream) {
	if client != nil {
		input := io.WriteCloser(open{io.Discard})
		if x.request.AttachStdin {
			input = process.Stdin
		}
		go client.feed(input)
	}
	var reading sync.WaitGroup
	for _, output := range []struct {
		stream container.Stream
		from   io.ReadCloser
		wanted bool
	}{{container.Stdout, process.Stdout, x.request.AttachStdout}, {container.Stderr, process.Stderr, x.request.AttachStderr}} {
		if output.from == nil {
			continue
		}
		reading.Go(func() {
			defer output.from.Close()
			buffer := make([]byte, streamBuffer)
			for {
				n, err := output.from.Read(buffer)
				if client != nil && output.wanted {
					client.write(output.stream, buffer[:n])
				}
				if err != nil {
					return
				}
			}
		})
	}
	reading.Wait()
	exit, err := process.Wait()
	if err != nil {
		exit = container.ExitNotExecutable
	}
	x.ended(exit)
	s.Notify(events.ActionExecDie, map[string]string{"execID": x.id, "exitCode": strconv.Itoa(exit)})
}

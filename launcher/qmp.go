package launcher

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// maxQMPLine bounds one message of QEMU's, in bytes.
const maxQMPLine = 1 << 20

// qmpTimeout bounds the wait for an answer. QEMU answers from its main loop,
// which a loaded machine may keep waiting.
const qmpTimeout = 20 * time.Second

// qmpMessage is one line that QEMU writes: the greeting, the answer to a
// command, or an event.
// Source: QEMU 10.0, docs/interop/qmp-spec.rst, section 2.
type qmpMessage struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       *int            `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *qmpError       `json:"error"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return fmt.Sprintf("%s: %s", e.Class, e.Desc) }

// parseQMP reads one message, which must be of exactly one kind. Members that
// it does not know are let pass: QEMU's versions add some.
func parseQMP(line []byte) (qmpMessage, error) {
	var m qmpMessage
	if err := json.Unmarshal(line, &m); err != nil {
		return qmpMessage{}, fmt.Errorf("qmp: %w", err)
	}
	kinds := 0
	for _, is := range []bool{m.Greeting != nil, m.Return != nil, m.Error != nil, m.Event != ""} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return qmpMessage{}, fmt.Errorf("qmp: %.80q is not one of greeting, return, error and event", line)
	}
	return m, nil
}

// qmp is QEMU's control connection.
type qmp struct {
	conn    io.ReadWriteCloser
	onEvent func(name string, data json.RawMessage)

	mu      sync.Mutex
	next    int
	waiting map[int]chan qmpMessage
	err     error         // why the reader ended
	ended   chan struct{} // closed then
}

var errQMPClosed = errors.New("qmp: QEMU closed the connection")

// newQMP shakes hands. onEvent is called for each event, from one goroutine.
func newQMP(conn io.ReadWriteCloser, onEvent func(string, json.RawMessage)) (*qmp, error) {
	q := &qmp{conn: conn, onEvent: onEvent, waiting: map[int]chan qmpMessage{}, ended: make(chan struct{})}
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), maxQMPLine)
	greeting, err := nextQMP(lines)
	if err != nil {
		return nil, err
	}
	if greeting.Greeting == nil {
		return nil, errors.New("qmp: no greeting")
	}
	go q.read(lines)
	if _, err := q.execute("qmp_capabilities", nil); err != nil {
		return nil, err
	}
	return q, nil
}

func nextQMP(lines *bufio.Scanner) (qmpMessage, error) {
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) > 0 {
			return parseQMP(lines.Bytes())
		}
	}
	if err := lines.Err(); err != nil {
		return qmpMessage{}, fmt.Errorf("qmp: %w", err)
	}
	return qmpMessage{}, errQMPClosed
}

func (q *qmp) read(lines *bufio.Scanner) {
	for {
		m, err := nextQMP(lines)
		if err != nil {
			q.mu.Lock()
			q.err = err
			q.mu.Unlock()
			close(q.ended)
			return
		}
		if m.Event != "" {
			q.onEvent(m.Event, m.Data)
			continue
		}
		if m.ID == nil {
			continue
		}
		q.mu.Lock()
		answer := q.waiting[*m.ID]
		delete(q.waiting, *m.ID)
		q.mu.Unlock()
		if answer != nil {
			answer <- m // buffered for the one answer
		}
	}
}

// execute runs one command and waits for its answer.
func (q *qmp) execute(command string, arguments any) (json.RawMessage, error) {
	answer := make(chan qmpMessage, 1)
	q.mu.Lock()
	q.next++
	id := q.next
	q.waiting[id] = answer
	request := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, arguments, id}
	line, err := json.Marshal(request)
	if err == nil {
		_, err = q.conn.Write(append(line, '\n'))
	}
	q.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("qmp: %s: %w", command, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return nil, fmt.Errorf("qmp: %s: %w", command, m.Error)
		}
		return m.Return, nil
	case <-q.ended:
		return nil, fmt.Errorf("qmp: %s: %w", command, q.err)
	case <-time.After(qmpTimeout):
		q.mu.Lock()
		delete(q.waiting, id)
		q.mu.Unlock()
		return nil, fmt.Errorf("qmp: %s: no answer within %v", command, qmpTimeout)
	}
}

// monitor runs a command of the human monitor and returns its text.
func (q *qmp) monitor(command string) (string, error) {
	raw, err := q.execute("human-monitor-command", map[string]string{"command-line": command})
	if err != nil {
		return "", err
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", fmt.Errorf("qmp: %s: %w", command, err)
	}
	return text, nil
}

// firstVCPU returns the number of the thread that runs vCPU 0.
func (q *qmp) firstVCPU() (int, error) {
	raw, err := q.execute("query-cpus-fast", nil)
	if err != nil {
		return 0, err
	}
	var cpus []struct {
		Index  int `json:"cpu-index"`
		Thread int `json:"thread-id"`
	}
	if err := json.Unmarshal(raw, &cpus); err != nil {
		return 0, fmt.Errorf("qmp: query-cpus-fast: %w", err)
	}
	for _, c := range cpus {
		if c.Index == 0 {
			return c.Thread, nil
		}
	}
	return 0, errors.New("qmp: query-cpus-fast: no vCPU 0")
}

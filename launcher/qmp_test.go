package launcher

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": ["oob"]}}`

// fakeQEMU greets and answers each command by its name, with events between.
func fakeQEMU(t *testing.T, answers map[string]string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		defer theirs.Close()
		fmt.Fprintf(theirs, "%s\r\n", greeting)
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			var c struct {
				Execute string `json:"execute"`
				ID      int    `json:"id"`
			}
			if json.Unmarshal(lines.Bytes(), &c) != nil {
				return
			}
			answer, ok := answers[c.Execute]
			if !ok {
				return // as if QEMU died
			}
			fmt.Fprintf(theirs, `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}`+"\r\n")
			fmt.Fprintf(theirs, "{\"id\": %d, %s}\r\n", c.ID, answer)
		}
	}()
	return ours
}

func TestQMP(t *testing.T) {
	events := make(chan string, 16)
	conn := fakeQEMU(t, map[string]string{
		"qmp_capabilities":      `"return": {}`,
		"human-monitor-command": `"return": "RIP=000000007ec76148\r\n"`,
		"query-cpus-fast":       `"return": [{"cpu-index": 1, "thread-id": 8}, {"cpu-index": 0, "thread-id": 7, "target": "x86_64"}]`,
		"cont":                  `"error": {"class": "GenericError", "desc": "no"}`,
	})
	q, err := newQMP(conn, func(name string, _ json.RawMessage) { events <- name })
	if err != nil {
		t.Fatal(err)
	}
	text, err := q.monitor("info registers")
	if err != nil || text != "RIP=000000007ec76148\r\n" {
		t.Errorf("got %q, %v", text, err)
	}
	if got, err := q.firstVCPU(); got != 7 || err != nil {
		t.Errorf("vCPU 0 is thread %d, %v; want 7", got, err)
	}
	if _, err := q.execute("cont", nil); err == nil || err.Error() != "qmp: cont: GenericError: no" {
		t.Errorf("got error %v", err)
	}
	if _, err := q.execute("quit", nil); !errors.Is(err, errQMPClosed) {
		t.Errorf("QEMU gone: got error %v, want %v", err, errQMPClosed)
	}
	if got := <-events; got != "RESUME" {
		t.Errorf("got event %q", got)
	}
}

func TestQMPNoGreeting(t *testing.T) {
	for _, first := range []string{`{"return": {}}`, `garbage`, ``} {
		ours, theirs := net.Pipe()
		go func() { fmt.Fprintln(theirs, first); theirs.Close() }()
		if q, err := newQMP(ours, nil); err == nil {
			t.Errorf("%q: got %v, want an error", first, q)
		}
		ours.Close()
	}
}

func TestParseQMPRefused(t *testing.T) {
	for _, line := range []string{
		``, `[]`, `{}`, `{"return":{},"event":"X"}`, `{"error":{},"return":{}}`, `{"id":"x","return":{}}`,
		`{"event":7}`, `{"return":{}}}`,
	} {
		m, err := parseQMP([]byte(line))
		if err == nil {
			t.Errorf("%q passes", line)
		}
		if diff := cmp.Diff(qmpMessage{}, m); diff != "" {
			t.Errorf("%q: an error with a value: %s", line, diff)
		}
	}
}

func FuzzParseQMP(f *testing.F) {
	for _, line := range []string{
		greeting,
		`{"return": {}, "id": 1}`,
		`{"id": 2, "error": {"class": "GenericError", "desc": "no"}}`,
		`{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`,
		strings.Repeat("[", 100),
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseQMP(line)
		if err != nil {
			if diff := cmp.Diff(qmpMessage{}, m); diff != "" {
				t.Fatalf("an error with a value: %s", diff)
			}
			return
		}
		if (m.Greeting != nil) == (m.Return != nil || m.Error != nil || m.Event != "") {
			t.Fatalf("%q has no one kind", line)
		}
	})
}

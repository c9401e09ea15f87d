package launcher

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/port"
)

func TestReadEvents(t *testing.T) {
	const in = `{"name":"agent","uptime":100}
{"name":"serving","uptime":200}
{"name":"started","uptime":300}
{"name":"health","uptime":350,"health":"unhealthy"}
{"name":"exit","uptime":400,"exit":143}
{"name":"refused","uptime":500,"reason":"no"}
`
	var got []port.Event
	if err := readEvents(strings.NewReader(in), time.Now(), func(e Event) {
		if e.Since < 0 {
			t.Errorf("%s: %v since the start", e.Name, e.Since)
		}
		got = append(got, e.Event)
	}); err != nil {
		t.Fatal(err)
	}
	want := []port.Event{
		{Name: port.EventAgent, Uptime: 100},
		{Name: port.EventServing, Uptime: 200},
		{Name: port.EventStarted, Uptime: 300},
		{Name: port.EventHealth, Uptime: 350, Health: port.Unhealthy},
		{Name: port.EventExit, Uptime: 400, Exit: 143},
		{Name: port.EventRefused, Uptime: 500, Reason: "no"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestReadEventsHostile(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"no JSON", "hello\n", "invalid character"},
		{"unknown member", `{"name":"agent","uptime":1,"x":2}` + "\n", `unknown member "x"`},
		{"unknown event", `{"name":"rooted","uptime":1}` + "\n", `unknown event "rooted"`},
		{"empty line", "\n", "unexpected end"},
		{"exit status", `{"name":"exit","uptime":1,"exit":256}` + "\n", "exit: 256 is not between 0 and 255"},
		{"exit of another event", `{"name":"agent","uptime":1,"exit":1}` + "\n", `exit: 1 with event "agent"`},
		{"reason of another event", `{"name":"agent","uptime":1,"reason":"x"}` + "\n", `reason: with event "agent"`},
		{"health of another event", `{"name":"agent","uptime":1,"health":"healthy"}` + "\n", `health: with event "agent"`},
		{"no health", `{"name":"health","uptime":1}` + "\n", `health: unknown health ""`},
		{"unknown health", `{"name":"health","uptime":1,"health":"\u001b[2J"}` + "\n", `health: unknown health "\x1b[2J"`},
		{"negative uptime", `{"name":"agent","uptime":-1}` + "\n", "uptime: -1"},
		{"long line", strings.Repeat("x", 1<<20), "more than 4096 bytes"},
		{"long event", `{"name":"refused","uptime":1,"reason":"` + strings.Repeat("x", port.MaxLine) + "\"}\n", "more than 4096 bytes"},
		{"many events", strings.Repeat(`{"name":"agent","uptime":1}`+"\n", maxEvents+1), "more than 64 events"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			err := readEvents(strings.NewReader(tt.in), time.Now(), func(Event) { n++ })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			if n > maxEvents {
				t.Errorf("%d events were let through", n)
			}
		})
	}
}

// TestManyHealths: a guest may tell of its health for years.
func TestManyHealths(t *testing.T) {
	n := 0
	line := `{"name":"health","uptime":1,"health":"healthy"}` + "\n"
	if err := readEvents(strings.NewReader(strings.Repeat(line, 10*maxEvents)), time.Now(), func(Event) { n++ }); err != nil || n != 10*maxEvents {
		t.Errorf("%d events, %v", n, err)
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(`{"name":"agent","uptime":100}`))
	f.Add([]byte(`{"name":"exit","uptime":400,"exit":143}`))
	f.Add([]byte(`{"name":"health","uptime":400,"health":"starting"}`))
	f.Add([]byte(`{"name":"refused","uptime":500,"reason":"\u001b[2J"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseEvent(line)
		if err != nil {
			if e != (port.Event{}) {
				t.Fatalf("an error with a value: %+v", e)
			}
			return
		}
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) >= port.MaxLine { // escapes made it longer than a line
			return
		}
		again, err := parseEvent(b)
		if err != nil || again != e {
			t.Fatalf("%s reads as %+v, %v; it was %+v", b, again, err, e)
		}
	})
}

func TestPrintable(t *testing.T) {
	if got, want := printable("a\x1b[2Jb\r\x00\nc\u202e"), "a\uFFFD[2Jb\uFFFD\uFFFD\nc\uFFFD"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

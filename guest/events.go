package guest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/pod"
)

// Names of the event log's entries, see docs/spec/agent.md.
const (
	eventSpec      = "spec"
	eventImage     = "image"
	eventRoot      = "root"
	eventFormatted = "formatted"
	eventVolume    = "volume"
	eventNFS       = "nfs"
	eventOwner     = "owner"  // whose secrets were taken
	eventSecret    = "secret" // its name
	eventStarted   = "started"
	eventRestarted = "restarted"
	eventExit      = "exit"
	eventAccess    = "access" // what a client asked for
)

// eventLog is what the agent has done. Evidence binds it.
type eventLog struct {
	mu     sync.Mutex
	events []evidence.Event
}

func (l *eventLog) add(name, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, evidence.Event{Name: name, Value: value})
}

// maxRestarts is how many restarts have an entry of their own.
const maxRestarts = 32

// restarted notes the n-th restart, from 1 on, and the exit status before it. The last
// entry stands for all restarts from maxRestarts on: the log stays bounded.
func (l *eventLog) restarted(n, exit int) {
	e := evidence.Event{Name: eventRestarted, Value: fmt.Sprintf("%d %d", n, exit)}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.events) - 1; i >= 0 && n > maxRestarts; i-- {
		if l.events[i].Name == eventRestarted {
			l.events[i] = e
			return
		}
	}
	l.events = append(l.events, e)
}

// decided notes that the client of that place in the spec's access asked for an
// operation. What is asked for again is counted: the log stays bounded.
func (l *eventLog) decided(client int, op pod.Operation, allowed bool) {
	what := fmt.Sprintf("%d %s refused ", client, op)
	if allowed {
		what = fmt.Sprintf("%d %s allowed ", client, op)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range l.events {
		if count, ok := strings.CutPrefix(e.Value, what); ok && e.Name == eventAccess {
			n, _ := strconv.ParseUint(count, 10, 64) // it was written here
			l.events[i].Value = what + strconv.FormatUint(n+1, 10)
			return
		}
	}
	l.events = append(l.events, evidence.Event{Name: eventAccess, Value: what + "1"})
}

func (l *eventLog) snapshot() []evidence.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

package guest

import (
	"slices"
	"sync"

	"github.com/kraudcloud/kattest/guest/evidence"
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
	eventExit      = "exit"
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

func (l *eventLog) snapshot() []evidence.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

package vm

import (
	"net/netip"
	"strings"
	"testing"
)

func TestBridge(t *testing.T) {
	forward := []Forward{{netip.MustParseAddr("127.0.0.1"), 0, 80, "tcp"}}
	for _, tt := range []struct {
		err      string // empty: none
		bridge   Bridge
		forwards []Forward
	}{
		{"", *NewBridge("br0"), nil},
		{"", Bridge{"docker-0.1_x", "52:54:00:12:34:56"}, nil},
		{"bridge.name: \"\"", *NewBridge(""), nil},
		{"bridge.name: \"a,b\"", *NewBridge("a,b"), nil},
		{"bridge.name: \"..\"", *NewBridge(".."), nil},
		{"bridge.name: \"0123456789abcdef\"", *NewBridge("0123456789abcdef"), nil},
		{"bridge.mac: \"\"", Bridge{"br0", ""}, nil},
		{"bridge.mac: \"53:54", Bridge{"br0", "53:54:00:12:34:56"}, nil},
		{"bridge.mac: \"52-54", Bridge{"br0", "52-54-00-12-34-56"}, nil},
		{"bridge.mac: \"02:00:5e:10:00:00:00:01\"", Bridge{"br0", "02:00:5e:10:00:00:00:01"}, nil},
		{"forwards: on a bridge", *NewBridge("br0"), forward},
	} {
		c := DefaultConfig()
		c.Bridge, c.Forwards = &tt.bridge, tt.forwards
		err := c.Check()
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: %v, want %q", tt.bridge, err, tt.err)
		}
	}
	if one, other := NewBridge("br0"), NewBridge("br0"); one.MAC == other.MAC {
		t.Error("two guests have one address")
	}
}

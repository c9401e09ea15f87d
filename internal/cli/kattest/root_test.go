package kattest

import "testing"

// A name leads to its own command, alone.
func TestNew(t *testing.T) {
	all := New().Commands()
	if len(all) != len(commands) {
		t.Errorf("%d commands, want %d", len(all), len(commands))
	}
	for name := range commands {
		one := New(name, "--help").Commands()
		if len(one) != 1 || one[0].Name() != name {
			t.Errorf("%s leads to %v", name, one)
		}
	}
	for _, args := range [][]string{{"--help"}, {"help", "verify"}, {"verfy"}, {"__complete", "ver"}} {
		if got := New(args...).Commands(); len(got) != len(all) {
			t.Errorf("%q leads to %d commands", args, len(got))
		}
	}
}

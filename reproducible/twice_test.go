package reproducible

import (
	"errors"
	"testing"

	"github.com/kraudcloud/kattest/measure/stack"
)

func TestSame(t *testing.T) {
	of := func(kernel, agent string) built {
		return built{
			stack.Stack{Files: []stack.File{{Name: stack.Kernel, SHA256: kernel}, {Name: stack.Agent, SHA256: agent}}},
			map[string]string{stack.Kernel: "cache/" + kernel, stack.Agent: "cache/" + agent},
		}
	}
	if err := same(of("a", "b"), of("a", "b")); err != nil {
		t.Errorf("the same: %v", err)
	}
	err := same(of("a", "b"), of("a", "c"))
	differ, ok := errors.AsType[*DifferError](err)
	if want := (DifferError{stack.Agent, "cache/b", "cache/c"}); !ok || *differ != want {
		t.Errorf("error %v, want %v", err, &want)
	}
}

// What the cache remakes is the second agent, not the second kernel.
func TestSecondBuilder(t *testing.T) {
	b := &builder{Options: Options{Cache: t.TempDir(), Jobs: 2}}
	s := b.second()
	if s.Jobs != 3 || s.vary == "" || s.cache.dir == b.cache.dir || !s.cache.remake || b.vary != "" || b.cache.remake {
		t.Errorf("second %+v of %+v", s, b)
	}
}

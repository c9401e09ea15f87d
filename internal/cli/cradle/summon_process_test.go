package cradle

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kraudcloud/kattest/guest/pod"
)

func TestProcessFlags(t *testing.T) {
	var got pod.Spec
	err := processFlags{
		groups: []string{"audio", "7"}, security: []string{"no-new-privileges", "seccomp=unconfined"},
		ulimits: []string{"nofile=64:128", "core=0", "memlock=-1"}, hosts: []string{"db:192.0.2.7", "six:[fd00::1]"}, search: []string{"example.org"},
		options: []string{"ndots:2"}, init: true,
		readOnly: true, stopTimeout: 30, pids: 100, memory: "64m", cpus: "1.5",
	}.apply(&got)
	if err != nil {
		t.Fatal(err)
	}
	want := pod.Spec{
		Image: pod.Image{ReadOnly: true},
		Process: pod.Process{
			Groups: []string{"audio", "7"}, NoNewPrivileges: true, Seccomp: pod.SeccompUnconfined, StopTimeout: 30, Init: true,
			Rlimits: []pod.Rlimit{{Name: "RLIMIT_NOFILE", Soft: 64, Hard: 128}, {Name: "RLIMIT_CORE"}, {Name: "RLIMIT_MEMLOCK", Soft: -1, Hard: -1}},
		},
		Network: pod.Network{
			Search: []string{"example.org"}, Options: []string{"ndots:2"},
			Hosts: []pod.Host{{Name: "db", Address: netip.MustParseAddr("192.0.2.7")}, {Name: "six", Address: netip.MustParseAddr("fd00::1")}},
		},
		Resources: &pod.Resources{Memory: 64 << 20, PIDs: 100, CPU: 1500},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var none pod.Spec
	if err := (processFlags{}).apply(&none); err != nil || none.Resources != nil {
		t.Errorf("%+v, %v", none, err)
	}
	for want, f := range map[string]processFlags{
		`--security-opt "label=x": want`:        {security: []string{"label=x"}},
		`--ulimit "nofile": want NAME=SOFT`:     {ulimits: []string{"nofile"}},
		`--ulimit "nofile=a": "a" is not`:       {ulimits: []string{"nofile=a"}},
		`--ulimit "nofile=1:b": "b" is not`:     {ulimits: []string{"nofile=1:b"}},
		`--add-host "db"`:                       {hosts: []string{"db"}},
		`--add-host "db:host-gateway"`:          {hosts: []string{"db:host-gateway"}},
		`--container-memory: "64q" is not`:      {memory: "64q"},
		`--cpus: "0" is not a number of`:        {cpus: "0"},
		`--cpus: "NaN" is not a number of proc`: {cpus: "NaN"},
	} {
		if err := f.apply(&pod.Spec{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

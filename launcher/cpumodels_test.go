package launcher

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/measure"
)

// pipes are QEMU's standard streams as one connection.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// testCPUModels: the signatures that measure knows are those that a QEMU gives to
// its models, and it knows all that an SNP host may be asked for.
func testCPUModels(t *testing.T, of qemu) {
	cmd := of.command(t.Context(), "-machine", "none", "-accel", "tcg", "-nodefaults", "-display", "none", "-qmp", "stdio")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	q, err := newQMP(pipes{out, in}, func(string, json.RawMessage) {})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(command string, arguments, answer any) {
		t.Helper()
		raw, err := q.execute(command, arguments)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, answer); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if _, err := q.execute("quit", nil); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()

	var defined []struct{ Name string }
	ask("query-cpu-definitions", nil, &defined)
	checked := 0
	for _, d := range defined {
		family, _, _ := strings.Cut(d.Name, "-")
		switch family {
		case "EPYC", "Dhyana", "qemu64", "kvm64":
		default:
			continue
		}
		known, err := measure.ParseCPU(d.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		var expansion struct {
			Model struct {
				Props struct{ Family, Model, Stepping json.Number }
			}
		}
		model := map[string]any{"type": "full", "model": map[string]string{"name": d.Name}}
		ask("query-cpu-model-expansion", model, &expansion)
		p := expansion.Model.Props
		real, err := measure.ParseFMS(p.Family.String() + "/" + p.Model.String() + "/" + p.Stepping.String())
		if err != nil {
			t.Fatal(err)
		}
		if known.Signature != real.Signature {
			t.Errorf("%s: signature %#x, QEMU's is %#x", d.Name, known.Signature, real.Signature)
		}
		checked++
	}
	if checked < 20 {
		t.Errorf("QEMU has %d models, want 20 and more", checked)
	}
}

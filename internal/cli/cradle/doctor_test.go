package cradle

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/launcher/doctor"
)

// TestDoctorScripts runs testdata/doctor. Beside what TestRunScripts gives, the
// scripts find doctor's recorded hosts in $HOSTS and have
//
//	cmpjson FILE  the last report in JSON must have that check and no other that fails
func TestDoctorScripts(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	hosts, err := filepath.Abs("../../../launcher/doctor/testdata")
	if err != nil {
		t.Fatal(err)
	}
	params := runParams("doctor")
	params.Setup = func(env *testscript.Env) error {
		env.Setenv("HOSTS", hosts)
		return nil
	}
	params.Cmds["cmpjson"] = func(ts *testscript.TestScript, _ bool, args []string) {
		var report doctor.Report
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &report))
		var want doctor.Check
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &want))
		if report.MediaType != doctor.MediaType || report.Ready {
			ts.Fatalf("mediaType %q, ready %v", report.MediaType, report.Ready)
		}
		if diff := cmp.Diff([]doctor.Check{want}, report.Failed()); diff != "" {
			ts.Fatalf("-want +got:\n%s", diff)
		}
	}
	testscript.Run(t, params)
}

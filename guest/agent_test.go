package guest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/secrets"
)

// TestMain is an agent where it is process number 1: internal/e2e boots guests
// with this program as their agent, to which testKeys hands secrets.
func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == container.Arg0:
		os.Exit(container.Init())
	case os.Args[0] == container.ExecArg0:
		os.Exit(container.ExecInit())
	case os.Args[0] == container.ArchiveArg0:
		os.Exit(container.ArchiveMain())
	case os.Args[0] == "/sleep": // the workload of tests that run a container
		time.Sleep(time.Hour)
	case os.Getpid() == 1 && os.Args[0] == "/init":
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		log.Info("agent", "uptime", uptime())
		run(log, testKeys{})
	}
	os.Exit(testContainers(m))
}

// testKeys finds in the secret's name what its owner hands over: a letter of
// which it is made, and "-new" if a blank disk is to become a volume.
type testKeys struct{}

func (testKeys) wait(_ context.Context, spec pod.Spec) (map[string]secrets.Secret, error) {
	all := map[string]secrets.Secret{}
	for _, e := range spec.Secrets.Expects {
		letter, format := strings.CutSuffix(e.Name, "-new")
		if len(letter) != 1 {
			return nil, fmt.Errorf("no secret %q", e.Name)
		}
		all[e.Name] = secrets.Secret{Name: e.Name, Value: bytes.Repeat([]byte(letter), 32), Format: format}
	}
	return all, nil
}

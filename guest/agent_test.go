package guest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/guest/container"
)

// TestMain is an agent where it is process number 1: internal/e2e boots guests
// with this program as their agent, to which testKeys hands secrets.
func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == container.Arg0:
		os.Exit(container.Init())
	case os.Getpid() == 1 && os.Args[0] == "/init":
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		log.Info("agent", "uptime", uptime())
		run(log, testKeys{})
	}
	os.Exit(m.Run())
}

// testKeys finds in the secret's name what its owner hands over: a letter of
// which it is made, and "-new" if a blank disk is to become a volume.
type testKeys struct{}

func (testKeys) volumeKey(_ context.Context, name string) ([]byte, bool, error) {
	letter, format := strings.CutSuffix(name, "-new")
	if len(letter) != 1 {
		return nil, false, fmt.Errorf("no secret %q", name)
	}
	return bytes.Repeat([]byte(letter), 32), format, nil
}

package guest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/platform"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// pspTimeout bounds one exchange with the simulated PSP.
const pspTimeout = 30 * time.Second

func (a *agent) openPlatform(ctx context.Context) error {
	kind, err := platform.Detect()
	if err != nil {
		return err
	}
	a.log.Info("platform", "kind", kind.String())
	a.platform, err = platform.Open(kind, func() (io.ReadWriter, error) {
		p, err := openPort(ctx, port.PSPPort)
		if err != nil {
			return nil, err
		}
		return timed{p}, nil
	})
	return err
}

// timed gives each write, and the reads after it, the same time.
type timed struct{ deadlined }

func (t timed) Write(b []byte) (int, error) {
	deadline := time.Now().Add(pspTimeout)
	if err := t.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	if err := t.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	return t.deadlined.Write(b)
}

// readSpec takes the launch spec from its disk. Its bytes are compared with
// HOST_DATA before anything reads them.
func (a *agent) readSpec(ctx context.Context) error {
	var fresh [64]byte
	if _, err := rand.Read(fresh[:]); err != nil {
		return err
	}
	report, err := a.platform.Report(fresh)
	if err != nil {
		return err
	}
	node, err := waitFor(ctx, serials, port.SpecDisk)
	if err != nil {
		return err
	}
	disk, err := os.Open(node)
	if err != nil {
		return err
	}
	defer disk.Close()
	data, err := port.DecodeSpecDisk(disk, pod.MaxSize)
	if err != nil {
		return err
	}
	return a.takeSpec(data, report.HostData())
}

// takeSpec judges the bytes of a launch spec.
func (a *agent) takeSpec(data []byte, hostData [32]byte) error {
	digest := pod.Digest(data)
	if digest != hostData {
		return fmt.Errorf("HOST_DATA of the report is %s, the launch spec's digest %s: the host handed over another spec than it launched",
			pod.Hash(hostData), digest)
	}
	spec, err := pod.Parse(data)
	if err != nil {
		return err
	}
	stop, err := container.ParseSignal(spec.Process.StopSignal)
	if err != nil {
		return fmt.Errorf("launch spec: process.stopSignal: %w", err)
	}
	a.spec, a.digest, a.stop = spec, digest, stop
	a.events.add(eventSpec, digest.String())
	return nil
}

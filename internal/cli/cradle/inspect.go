package cradle

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
)

// inspected is what is known of a VM from its folder. It is documented in
// docs/spec/vm-folder.md.
type inspected struct {
	ID      string         `json:"id"`
	Name    string         `json:"name"`
	Folder  string         `json:"folder"`
	Created time.Time      `json:"created"`
	Image   string         `json:"image"`  // as it was named, else its digest
	Digest  string         `json:"digest"` // the image manifest's
	Args    []string       `json:"args"`
	State   inspectedState `json:"state"`

	HostData    pod.Hash        `json:"hostData"`
	Measurement *measure.Digest `json:"measurement,omitempty"` // by inspect alone
	VCPUs       int             `json:"vcpus"`
	CPU         string          `json:"cpu"`
	MemoryMiB   int             `json:"memoryMiB"`
	Agent       netip.AddrPort  `json:"agent"`
	Ports       []vm.Forward    `json:"ports,omitempty"`
}

// inspectedState has docker's names, as far as the meaning is the same.
type inspectedState struct {
	Status     string    `json:"status"` // created, starting, running, exited or dead
	Running    bool      `json:"running"`
	Pid        int       `json:"pid,omitempty"` // QEMU's
	Platform   string    `json:"platform,omitempty"`
	Accel      string    `json:"accel,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	Health     *health   `json:"health,omitempty"` // by the guest's word; nil where it has said none
	ExitCode   int       `json:"exitCode"`
	Error      string    `json:"error,omitempty"`

	phase   launcher.Phase
	stopped bool
}

// health is docker's, as far as the guest tells it.
type health struct {
	Status port.Health `json:"status"` // starting, healthy or unhealthy
}

func newInspect() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect VM...",
		Short: "Say all that is known of guests, as JSON",
		Example: `  cradle-snp inspect db
  cradle-snp inspect --format '{{.State.Status}} {{.Agent}}' db`,
		Args:              cli.Args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := inspectAll(cmd.Context(), args)
			if err != nil {
				return vmError(err, []error{err})
			}
			if format == "" {
				return printJSON(cmd.OutOrStdout(), list)
			}
			t, err := template.New("--format").Parse(format)
			if err != nil {
				return cli.Usage(err, "")
			}
			for _, i := range list {
				if err := t.Execute(cmd.OutOrStdout(), i); err != nil {
					return cli.Usage(err, "")
				}
				fmt.Fprintln(cmd.OutOrStdout())
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Go `template` to print each by, such as '{{.State.Status}}'")
	return cmd
}

func inspectAll(ctx context.Context, names []string) ([]inspected, error) {
	list := []inspected{}
	for _, name := range names {
		e, err := findVM(name)
		if err != nil {
			return nil, err
		}
		i, err := inspectVM(e)
		if err != nil {
			return nil, err
		}
		if i.Measurement, err = measurementOf(e.Folder); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		list = append(list, i)
	}
	return list, nil
}

// inspectVM reads a folder. It checks no more of it than that it can be read.
func inspectVM(e launcher.Entry) (inspected, error) {
	s, err := launcher.ReadStatus(e.Folder)
	if err != nil {
		return inspected{}, err
	}
	v, err := vm.Read(e.Folder)
	if err != nil {
		return inspected{}, err
	}
	info, err := os.Stat(filepath.Join(e.Folder, vm.SpecFile))
	if err != nil {
		return inspected{}, err
	}
	i := inspected{
		ID: e.ID, Name: e.Name(), Folder: e.Folder, Created: info.ModTime().UTC(),
		Image: v.Spec.Image.Reference, Digest: v.Spec.Image.Digest, Args: v.Spec.Process.Args,
		HostData: pod.Digest(v.SpecBytes), VCPUs: v.Config.VCPUs, CPU: v.Config.CPU, MemoryMiB: v.Config.MemoryMiB,
		Agent: v.Config.Agent, Ports: v.Config.Forwards,
		State: inspectedState{Status: s.Phase.String(), Running: s.Phase.Live(), phase: s.Phase},
	}
	if i.Image == "" {
		i.Image = i.Digest
	}
	switch {
	case s.Phase.Live() && s.State.PID != 0:
		i.Agent, i.Ports = s.State.Agent, s.State.Forwards
		i.State.Pid, i.State.Platform, i.State.Accel = s.State.PID, s.State.Platform, s.State.Accel
		i.State.StartedAt = s.State.Started
		if s.State.Health != "" {
			i.State.Health = &health{s.State.Health}
		}
	case s.Phase == launcher.Exited:
		i.State.StartedAt, i.State.FinishedAt = s.End.Began, s.End.Ended
		i.State.ExitCode, i.State.Error, i.State.stopped = s.End.Exit, s.End.Error, s.End.Stopped
	case s.Phase == launcher.Dead:
		i.State.StartedAt, i.State.Error = s.State.Began, "its launcher was killed"
	}
	return i, nil
}

func measurementOf(dir string) (*measure.Digest, error) {
	v, err := vm.Open(dir)
	if err != nil {
		return nil, cli.Usage(err, "")
	}
	_, fw, err := stack.LoadFirmware(filepath.Join(dir, vm.StackDir))
	if err != nil {
		return nil, cli.Usage(err, "")
	}
	digest, err := v.Config.Measure(v.Stack, fw)
	if err != nil {
		return nil, err
	}
	return &digest, nil
}

package cradle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/doctor"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// platformFlags are what run and args have in common.
type platformFlags struct {
	platform, accel string
	sevDevice       string
	id              idFlags
}

func (f *platformFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.platform, "platform", "snp", "`snp`, or sim for the simulated platform, which proves nothing")
	cmd.Flags().StringVar(&f.accel, "accel", "auto", "on sim: `auto`, kvm or tcg")
	cmd.Flags().StringVar(&f.sevDevice, "sev-device", "", "on snp: the secure processor's device (default "+doctor.DefaultSEVDevice+")")
	f.id.add(cmd.Flags())
}

// parse returns what of the launcher's options the flags say.
func (f *platformFlags) parse() (launcher.Options, error) {
	bad := func(format string, args ...any) (launcher.Options, error) {
		return launcher.Options{}, cli.Usage(fmt.Errorf(format, args...), "")
	}
	platform, err := launcher.ParsePlatform(f.platform)
	if err != nil {
		return bad("--platform: %w", err)
	}
	o := launcher.Options{Platform: platform}
	if f.accel != "auto" {
		if o.Accel, err = launcher.ParseAccel(f.accel); err != nil {
			return bad("--accel: %w", err)
		}
		if platform == launcher.SNP && o.Accel != launcher.KVM {
			return bad("--accel: SEV-SNP runs under kvm alone")
		}
	}
	if f.sevDevice != "" {
		if platform != launcher.SNP {
			return bad("--sev-device: the simulated platform has no secure processor")
		}
		if o.SEVDevice, err = filepath.Abs(f.sevDevice); err != nil {
			return bad("--sev-device: %w", err)
		}
	}
	return o, nil
}

// openVM opens DIR and checks all of it. What is wrong there is the user's input.
// An ID block that the flags name takes the place of DIR's.
func (f *platformFlags) openVM(dir string) (*vm.VM, error) {
	v, err := vm.Open(dir)
	if errors.Is(err, idblock.ErrSignature) {
		return nil, idBlockError(err)
	}
	if err != nil {
		return nil, cli.Usage(err, "'cradle-snp summon DIR IMAGE' makes a folder that is whole")
	}
	return v, f.id.apply(v)
}

func newRun() *cobra.Command {
	var flags platformFlags
	var pspState string
	var boot, stop time.Duration
	var quiet, remove bool
	var detached detachFlags
	cmd := &cobra.Command{
		Use:   "run DIR",
		Short: "Run the guest in DIR until its container ends",
		Long: `Run the guest in DIR until its container ends, with the container's exit
status as its own.

The container's output goes to standard output and error where the launch spec
lets the host have it. What firmware, kernel and agent print goes to standard
error, and to DIR/console.log. While the guest runs, DIR/run.json says where the
agent answers. The first Ctrl-C (or SIGTERM) asks the agent to stop the
container, the second ends the guest at once.

With --detach it returns when the container runs, and prints the VM's ID; 'ps',
'logs', 'stop', 'inspect' and 'rm' take that, DIR or DIR's name.

Where the host cannot launch SEV-SNP, run says all that is missing and exits
with 1. It never takes the simulated platform by itself.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.parse()
			if err != nil {
				return err
			}
			o.PSPState, o.BootTimeout, o.StopTimeout = pspState, boot, stop
			v, err := flags.openVM(args[0])
			if err != nil {
				return err
			}
			if o.Platform == launcher.Sim && o.PSPState == "" {
				if o.PSPState, err = simpsp.DefaultDir(); err != nil {
					return err
				}
			}
			noteVM(cmd.ErrOrStderr(), v.Dir)
			if detached.detach {
				return detached.launch(cmd, v.Dir)
			}
			r := runner{options: o, quiet: quiet, remove: remove}
			if r.report, err = detached.open(); err != nil {
				return err
			}
			return r.run(cmd, v)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&pspState, "psp-state", "", "on sim: folder of the simulated PSP's keys (default kattest/simpsp in the user's data folder)")
	cmd.Flags().DurationVar(&boot, "boot-timeout", launcher.DefaultBootTimeout, "longest time to the start of the container")
	cmd.Flags().DurationVar(&stop, "stop-timeout", launcher.DefaultStopTimeout, "longest time from Ctrl-C to the end")
	cmd.Flags().BoolVar(&remove, "rm", false, "remove DIR when the guest has ended, but for the disks of volumes")
	detached.add(cmd.Flags())
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "leave firmware, kernel and agent off standard error")
	return cmd
}

// runner runs a guest for a command.
type runner struct {
	options       launcher.Options
	quiet, remove bool
	report        *report // of a launcher in the background
}

func (r runner) run(cmd *cobra.Command, v *vm.VM) error {
	o := r.options
	stderr := &syncWriter{w: cmd.ErrOrStderr()}
	o.Stdout, o.Stderr = cmd.OutOrStdout(), stderr
	if !r.quiet {
		o.Console = stderr
	}
	o.OnStart = func(s launcher.State) {
		if o.Platform == launcher.Sim {
			fmt.Fprintf(stderr, "SIMULATED platform (%s): its reports prove nothing\n", s.Accel)
		}
		showIDBlock(stderr, v.Config.IDBlock)
		fmt.Fprintf(stderr, "attestation endpoint: %s\n", s.Agent)
		for _, f := range s.Forwards {
			fmt.Fprintf(stderr, "forward: %s:%d to the guest's %d/%s\n", f.HostAddress, f.HostPort, f.GuestPort, f.Protocol)
		}
	}
	o.OnEvent = func(e launcher.Event) {
		if !r.quiet {
			fmt.Fprintf(stderr, "%8.3fs %s\n", e.Since.Round(time.Millisecond).Seconds(), e.Name)
		}
		if e.Name == port.EventStarted {
			r.report.started()
		}
	}
	var release func()
	o.Kill, release = secondSignal()
	defer release()

	exit, err := launcher.Run(cmd.Context(), v, o)
	if err = runError(err); err == nil && exit != 0 {
		err = &cli.Silent{Code: exit}
	}
	r.report.ended(err)
	if r.remove {
		entry, entryErr := launcher.EntryOf(v.Dir)
		if entryErr != nil {
			return errors.Join(err, entryErr)
		}
		return errors.Join(err, removeVM(context.WithoutCancel(cmd.Context()), stderr, entry, false, false))
	}
	return err
}

// runError gives an error its exit code and hint.
func runError(err error) error {
	if err == nil {
		return nil
	}
	_, refused := errors.AsType[*launcher.RefusedError](err)
	switch {
	case refused, errors.Is(err, launcher.ErrFirmwareRefused), errors.Is(err, launcher.ErrNothingBooted):
		return &cli.Error{Code: cli.ExitMismatch, Err: err}
	case errors.Is(err, launcher.ErrNotReady):
		return &cli.Error{Code: cli.ExitInternal, Err: err, Hint: "'cradle-snp doctor' says how to mend each; '--platform sim' runs the same boot stack without SEV, and proves nothing"}
	case errors.Is(err, idblock.ErrMeasurement), errors.Is(err, idblock.ErrPolicy), errors.Is(err, idblock.ErrSignature):
		return idBlockError(err)
	case errors.Is(err, launcher.ErrForeign):
		return &cli.Error{Code: cli.ExitUsage, Err: err, Hint: "run it as the user who made it, in a folder of mode 0700"}
	case errors.Is(err, syscall.ENOSPC):
		return &cli.Error{Code: cli.ExitInternal, Err: err, Hint: "the disk that holds DIR is full"}
	case errors.Is(err, launcher.ErrBridge):
		return &cli.Error{Code: cli.ExitInternal, Err: err, Hint: "make the bridge, allow it in /etc/qemu/bridge.conf with a line 'allow NAME', and make qemu-bridge-helper set-uid root or run this as root"}
	case errors.Is(err, launcher.ErrRunning):
		return &cli.Error{Code: cli.ExitUsage, Err: err}
	}
	return err
}

// secondSignal returns a channel that is closed at the second SIGINT or SIGTERM;
// the first ends the command's context.
func secondSignal() (<-chan struct{}, func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done, second := make(chan struct{}), make(chan struct{})
	go func() {
		for range 2 {
			select {
			case <-signals:
			case <-done:
				return
			}
		}
		close(second)
	}()
	return second, func() {
		signal.Stop(signals)
		close(done)
	}
}

// syncWriter is written to from several ports of the guest.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

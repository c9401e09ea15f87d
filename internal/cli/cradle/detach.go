package cradle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
)

// detachFlags send a launcher into the background: the same command once more,
// in a session of its own, with a pipe on which it says that the container runs,
// or why it does not.
type detachFlags struct {
	detach bool
	report int // in the background: the pipe's number
}

const reportFlag = "report-fd"

// backgroundVariable is in the environment of a command in the background. A
// program that is another one than it was taken for does not start itself again
// and again.
const backgroundVariable = "KATTEST_IN_BACKGROUND"

func (f *detachFlags) add(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.detach, "detach", "d", false, "return when the container runs, and print the VM's ID")
	flags.IntVar(&f.report, reportFlag, 0, "")
	_ = flags.MarkHidden(reportFlag) // it is there
}

// reported is what the background says, in one line of JSON.
type reported struct {
	Started bool   `json:"started"`
	Code    int    `json:"code,omitempty"`
	Error   string `json:"error,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// report is the background's end of the pipe. Nil is in the foreground.
type report struct {
	once sync.Once
	file *os.File
}

func (f *detachFlags) open() (*report, error) {
	if f.report == 0 {
		return nil, nil
	}
	file := os.NewFile(uintptr(f.report), "report")
	if _, err := file.Stat(); err != nil || f.report < 3 {
		return nil, cli.Usage(fmt.Errorf("--%s: it is for 'run --detach' itself", reportFlag), "")
	}
	syscall.CloseOnExec(f.report) // QEMU does not get it
	return &report{file: file}, nil
}

func (r *report) started() { r.say(reported{Started: true}) }

// ended says why there is no container, where none was said to be.
func (r *report) ended(err error) {
	said := reported{Code: cli.ExitInternal, Error: "the container ended at once"}
	if silent, ok := errors.AsType[*cli.Silent](err); ok {
		said.Code, said.Error = silent.Code, fmt.Sprintf("the container ended at once, with %d", silent.Code)
	} else if err != nil {
		said.Error = err.Error()
		if known, ok := errors.AsType[*cli.Error](err); ok {
			said.Code, said.Hint = known.Code, known.Hint
		}
	}
	r.say(said)
}

func (r *report) say(said reported) {
	if r == nil {
		return
	}
	r.once.Do(func() {
		_ = json.NewEncoder(r.file).Encode(said) // where no one waits any more, the guest runs on
		r.file.Close()
	})
}

// launch runs the command in the background, and waits for what it reports.
func (f *detachFlags) launch(cmd *cobra.Command, dir string) error {
	entry, err := runInBackground(cmd.Context(), backgroundArgs(cmd.Flags()), dir)
	if err != nil {
		return err
	}
	status, err := launcher.ReadStatus(entry.Folder)
	if err == nil && status.Phase.Live() {
		fmt.Fprintf(cmd.ErrOrStderr(), "attestation endpoint: %s\n", status.State.Agent)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), entry.ID)
	return err
}

// runInBackground runs the guest in dir by a launcher of its own, and returns when
// its container runs. The options are run's.
func runInBackground(ctx context.Context, options []string, dir string) (launcher.Entry, error) {
	if os.Getenv(backgroundVariable) != "" {
		return launcher.Entry{}, errors.New("--detach: this is in the background already")
	}
	entry, err := launcher.EntryOf(dir)
	if err != nil {
		return launcher.Entry{}, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return launcher.Entry{}, err
	}
	defer r.Close()
	child := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        append([]string{os.Args[0], "run", fmt.Sprintf("--%s=3", reportFlag)}, options...),
		Env:         append(os.Environ(), backgroundVariable+"=1"),
		ExtraFiles:  []*os.File{w},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	child.Args = append(child.Args, "--", entry.Folder)
	err = child.Start()
	w.Close()
	if err != nil {
		return launcher.Entry{}, fmt.Errorf("starting a launcher in the background: %w", err)
	}
	// Who gives up waiting ends the guest as Ctrl-C does in the foreground.
	stop := context.AfterFunc(ctx, func() { _ = child.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var said reported
	if err := json.NewDecoder(r).Decode(&said); err != nil {
		return launcher.Entry{}, fmt.Errorf("the launcher in the background ended without a word (%w): %w", err, errors.Join(child.Wait()))
	}
	if !said.Started {
		_ = child.Wait() // it said why
		return launcher.Entry{}, &cli.Error{Code: said.Code, Err: errors.New(said.Error), Hint: said.Hint}
	}
	return entry, child.Process.Release()
}

// backgroundArgs are the options that were given, but for --detach.
func backgroundArgs(flags *pflag.FlagSet) []string {
	var args []string
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != "detach" && f.Name != reportFlag {
			args = append(args, fmt.Sprintf("--%s=%s", f.Name, f.Value))
		}
	})
	return args
}

package cradle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/cradle/compose"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// projectFlags are what up and down have in common.
type projectFlags struct{ folder, name string }

func (f *projectFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.folder, "folder", "", "folder of the guests' folders (default .cradle-snp beside the file)")
	cmd.Flags().StringVarP(&f.name, "project-name", "p", "", "name of the project, in place of the file's or its folder's")
}

// load reads the compose file.
func (f *projectFlags) load(ctx context.Context, file string, lenient bool) (*project, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	options := newSummon().Flags()
	p, err := compose.Load(ctx, compose.Options{
		File: file, Name: f.name, Lenient: lenient,
		Has: func(option string) bool {
			return options.Lookup(option) != nil && option != "help" && option != "output"
		},
	})
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("%s:\n%w", file, err), "docs/compose.md lists the keys that a guest can have")
	}
	folder := f.folder
	if folder == "" {
		folder = filepath.Join(filepath.Dir(file), ".cradle-snp")
	}
	return &project{Project: p, folder: folder}, nil
}

// project is a compose file and where its guests are.
type project struct {
	compose.Project
	folder string
}

func (p *project) dir(s compose.Service) string { return filepath.Join(p.folder, s.Guest) }

type upFlags struct {
	projectFlags
	platform platformFlags
	pspState string
	stack    string
	detach   bool
}

func newUp() *cobra.Command {
	f := upFlags{}
	cmd := &cobra.Command{
		Use:   "up COMPOSE-FILE",
		Short: "Run the services of a compose file, each in a guest of its own",
		Long: `Make and run the services of a compose file, each in a guest of its own, in the
order of depends_on. A service whose guest runs, and whose part of the file is as
it was, is left alone.

The guests' output is printed until all have ended; where one has failed, the
exit code is 1. Ctrl-C stops them all. With --detach the command returns when all
containers run.

A key that a guest cannot have is an error that names it.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := f.platform.parse(); err != nil {
				return err
			}
			p, err := f.load(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			return f.up(cmd, p)
		},
	}
	f.add(cmd)
	f.platform.add(cmd)
	cmd.Flags().StringVar(&f.pspState, "psp-state", "", "on sim: folder of the simulated PSP's keys (default kattest/simpsp in the user's data folder)")
	cmd.Flags().StringVar(&f.stack, "stack", "", "folder of the boot stack (default $KATTEST_STACK, else kattest/stack in the user's data folder)")
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "return when all containers run")
	return cmd
}

func (f *upFlags) up(cmd *cobra.Command, p *project) error {
	if err := os.MkdirAll(p.folder, 0o700); err != nil {
		return err
	}
	stderr := cmd.ErrOrStderr()
	var started []compose.Service
	for _, s := range p.Services {
		err := f.start(cmd.Context(), stderr, p, s)
		if err == nil {
			started = append(started, s)
			continue
		}
		err = inService(s, err)
		if f.detach { // as docker compose: what runs goes on
			return err
		}
		return errors.Join(err, p.stopAll(context.WithoutCancel(cmd.Context()), stderr, started))
	}
	if f.detach {
		return nil
	}
	err := p.follow(cmd)
	return errors.Join(err, p.stopAll(context.WithoutCancel(cmd.Context()), stderr, started))
}

// inService names the service in an error, and keeps its exit code.
func inService(s compose.Service, err error) error {
	named := fmt.Errorf("services.%s: %w", s.Name, err)
	if known, ok := errors.AsType[*cli.Error](err); ok {
		return &cli.Error{Code: known.Code, Err: named, Hint: known.Hint}
	}
	return named
}

// start brings a service to run, as its part of the file says.
func (f *upFlags) start(ctx context.Context, stderr io.Writer, p *project, s compose.Service) error {
	for _, d := range s.DependsOn {
		if err := p.await(ctx, d); err != nil {
			return err
		}
	}
	dir := p.dir(s)
	line := f.summonLine(p, s)
	made, err := p.made(s, line)
	if err != nil {
		return err
	}
	if made {
		status, err := launcher.ReadStatus(dir)
		if err != nil {
			return err
		}
		if status.Phase.Live() {
			fmt.Fprintf(stderr, "%s: running\n", s.Guest)
			return nil
		}
	} else if err := p.make(ctx, stderr, s, line); err != nil {
		return err
	}
	entry, err := runInBackground(ctx, f.runOptions(), dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s: started as %s\n", s.Guest, entry.ID)
	status, err := launcher.ReadStatus(dir)
	if err == nil && status.Phase.Live() {
		fmt.Fprintf(stderr, "%s: attestation endpoint: %s\n", s.Guest, status.State.Agent)
		for _, port := range ports(status.State.Forwards) {
			fmt.Fprintf(stderr, "%s: %s\n", s.Guest, port)
		}
	}
	return nil
}

// summonLine is what makes a service's guest.
func (f *upFlags) summonLine(p *project, s compose.Service) []string {
	line := slices.Clone(s.Options)
	if f.stack != "" {
		line = append(line, "--stack="+f.stack)
	}
	return append(append(line, "--", p.dir(s), s.Image), s.Args...)
}

func (f *upFlags) runOptions() []string {
	options := []string{"--platform=" + f.platform.platform, "--accel=" + f.platform.accel}
	for name, value := range map[string]string{"psp-state": f.pspState, "sev-device": f.platform.sevDevice, "id-block": f.platform.id.block, "id-auth": f.platform.id.auth} {
		if value != "" {
			options = append(options, "--"+name+"="+value)
		}
	}
	return options
}

// made says whether a service's guest is there, made by that line. One that is
// there and made by another is removed, with what it has run.
func (p *project) made(s compose.Service, line []string) (bool, error) {
	if _, err := os.Stat(filepath.Join(p.dir(s), vm.ConfigFile)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	digest, err := lineDigest(line)
	if err != nil {
		return false, err
	}
	recorded, err := os.ReadFile(p.record(s))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return strings.TrimSpace(string(recorded)) == digest, nil
}

// record is the file that holds the digest of the line by which a guest was made.
// The line itself may hold passwords.
func (p *project) record(s compose.Service) string { return filepath.Join(p.folder, s.Guest+".sha256") }

func lineDigest(line []string) (string, error) {
	data, err := json.Marshal(line)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:]), nil
}

// make makes a service's guest anew.
func (p *project) make(ctx context.Context, stderr io.Writer, s compose.Service, line []string) error {
	if err := p.remove(ctx, stderr, s, false); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s: summoning %s\n", s.Guest, s.Image)
	summon := newSummon()
	summon.SetArgs(line)
	summon.SetOut(io.Discard)
	summon.SetErr(stderr)
	summon.SilenceErrors, summon.SilenceUsage = true, true
	summon.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return cli.Usage(err, "") })
	if err := summon.ExecuteContext(ctx); err != nil {
		return err
	}
	digest, err := lineDigest(line)
	if err != nil {
		return err
	}
	return wholefile.Write(p.record(s), []byte(digest+"\n"), 0o600)
}

// remove stops and removes a service's guest, where there is one.
func (p *project) remove(ctx context.Context, stderr io.Writer, s compose.Service, volumes bool) error {
	dir := p.dir(s)
	if _, err := os.Stat(filepath.Join(dir, vm.ConfigFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := p.stop(ctx, stderr, s); err != nil {
		return err
	}
	entry, err := launcher.EntryOf(dir)
	if err != nil {
		return err
	}
	if err := removeVM(ctx, stderr, entry, false, volumes); err != nil {
		return err
	}
	if err := os.Remove(p.record(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (p *project) stop(ctx context.Context, stderr io.Writer, s compose.Service) error {
	err := launcher.Stop(ctx, p.dir(s), 0)
	if errors.Is(err, launcher.ErrNotRunning) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		fmt.Fprintf(stderr, "%s: stopped\n", s.Guest)
	}
	return err
}

// stopAll stops services in the opposite order.
func (p *project) stopAll(ctx context.Context, stderr io.Writer, services []compose.Service) error {
	var errs []error
	for _, s := range slices.Backward(services) {
		if err := p.stop(ctx, stderr, s); err != nil {
			errs = append(errs, inService(s, err))
		}
	}
	return errors.Join(errs...)
}

// await waits until a dependency has ended well, or is healthy, where that is wanted.
// That it was started, the order has brought about.
func (p *project) await(ctx context.Context, d compose.Dependency) error {
	if !d.Completed && !d.Healthy {
		return nil
	}
	i := slices.IndexFunc(p.Services, func(s compose.Service) bool { return s.Name == d.Service })
	dir := p.dir(p.Services[i])
	if d.Healthy {
		v, err := vm.Read(dir)
		if err != nil {
			return err
		}
		if v.Spec.Healthcheck == nil {
			return fmt.Errorf("depends_on.%s: it has no healthcheck", d.Service)
		}
	}
	for {
		status, err := launcher.ReadStatus(dir)
		if err != nil {
			return err
		}
		met, err := meets(status, d)
		if err != nil {
			return fmt.Errorf("depends_on.%s: %w", d.Service, err)
		}
		if met {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// meets says whether a service is as another one waits for; an error that it will
// not be.
func meets(s launcher.Status, d compose.Dependency) (bool, error) {
	switch {
	case d.Healthy && s.Phase.Live() && s.State.Health == port.Unhealthy:
		return false, errors.New("it is unhealthy")
	case d.Healthy && s.Phase.Live():
		return s.State.Health == port.Healthy, nil
	case d.Healthy:
		return false, fmt.Errorf("it is not healthy: %v", s.Phase)
	case s.Phase.Live():
		return false, nil
	case s.Phase == launcher.Exited && s.End.Error == "" && s.End.Exit == 0:
		return true, nil
	}
	return false, fmt.Errorf("it did not end well: %v, exit status %d %s", s.Phase, s.End.Exit, s.End.Error)
}

// follow prints the output of all services until they have ended, or ctx has. It
// returns how services failed.
func (p *project) follow(cmd *cobra.Command) error {
	width := 0
	for _, s := range p.Services {
		width = max(width, len(s.Guest))
	}
	stdout, stderr := &syncWriter{w: cmd.OutOrStdout()}, &syncWriter{w: cmd.ErrOrStderr()}
	errs := make([]error, len(p.Services))
	var all sync.WaitGroup
	for i, s := range p.Services {
		all.Go(func() {
			began := p.began(s)
			err := launcher.Logs(cmd.Context(), p.dir(s), true, func(o launcher.Output) bool {
				if o.Time.Before(began) { // of an earlier run
					return true
				}
				w := stdout
				if o.Stream == "stderr" {
					w = stderr
				}
				_, err := fmt.Fprintf(w, "%-*s | %s\n", width, s.Guest, strings.TrimSuffix(o.Log, "\n"))
				return err == nil
			}, func() {})
			if err == nil {
				err = p.ended(stderr, s)
			}
			if err != nil && cmd.Context().Err() == nil {
				fmt.Fprintf(stderr, "%s: %v\n", s.Guest, err)
				errs[i] = inService(s, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// began returns when a service's run, or its last one, began.
func (p *project) began(s compose.Service) time.Time {
	status, err := launcher.ReadStatus(p.dir(s))
	if err != nil {
		return time.Time{}
	}
	if status.Phase.Live() {
		return status.State.Began
	}
	return status.End.Began
}

// ended says how a service ended; an error that it failed.
func (p *project) ended(w io.Writer, s compose.Service) error {
	status, err := launcher.ReadStatus(p.dir(s))
	switch {
	case err != nil:
		return err
	case status.Phase == launcher.Exited && status.End.Stopped:
		return errors.New("it was killed")
	case status.Phase == launcher.Exited && status.End.Error != "":
		return errors.New(status.End.Error)
	case status.Phase == launcher.Exited && status.End.Exit != 0:
		return fmt.Errorf("its container ended with %d", status.End.Exit)
	case status.Phase == launcher.Exited:
		fmt.Fprintf(w, "%s: ended with 0\n", s.Guest)
	case status.Phase == launcher.Dead:
		return errors.New("its launcher was killed")
	}
	return nil
}

func newDown() *cobra.Command {
	f := projectFlags{}
	var volumes bool
	cmd := &cobra.Command{
		Use:   "down COMPOSE-FILE",
		Short: "Stop and remove the guests of a compose file",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.load(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			var errs []error
			for _, s := range slices.Backward(p.Services) {
				if err := p.remove(cmd.Context(), cmd.ErrOrStderr(), s, volumes); err != nil {
					errs = append(errs, inService(s, err))
				}
			}
			if err := errors.Join(errs...); err != nil {
				return err
			}
			_ = os.Remove(p.folder) // where nothing else is in it
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "remove the disks of volumes too, with all that is on them")
	return cmd
}

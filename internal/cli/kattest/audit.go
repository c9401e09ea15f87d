package kattest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/reproducible"
	"github.com/kraudcloud/kattest/reproducible/audit"
)

// auditFlags are the flags of kattest audit.
type auditFlags struct {
	trust   trustFlags
	build   buildFlags
	stack   string
	output  string
	rebuild bool
	nothing bool // --without-diffoscope
}

func newAudit() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit BUNDLE",
		Short: "Hold boot stacks against a release: one that you were given, one that you build",
		Long: `Check the release's signature, hold the boot stack of --stack against it, and with
--rebuild build it anew from this checkout and its lock file. The table shows for
each file whether it is the release's; the exit code is 0 only if all are.

Of what differs it is said, as far as it is known: the first stage of the build at
which the two parted, where inside the file (the entry of the initrd, the section of
the kernel or the agent, the option of the kernel's configuration, offset and both
values), and what launch digests come of it. For that there must be two files: a
release has digests alone. diffoscope is asked too, where it is installed.

A rebuild needs the checkout that the release was made from.`,
		Example: `  kattest audit release.json --key release.pub --stack /usr/share/cradle-snp/stack
  kattest audit release.json --key release.pub --stack stack --rebuild --cache "$(mktemp -d)"`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	f.trust.register(flags)
	f.build.registerInputs(flags)
	flags.StringVar(&f.stack, "stack", "", "boot stack to hold against the release")
	flags.BoolVar(&f.rebuild, "rebuild", false, "build the stack anew, and hold that against the release too")
	flags.StringVar(&f.build.out, "out", "", "folder to keep the rebuilt stack in: absent, empty or a boot stack")
	flags.BoolVar(&f.nothing, "without-diffoscope", false, "do not ask diffoscope, which runs many programs on what it is given")
	flags.StringVar(&f.output, "output", "text", "text or json")
	return cmd
}

func (f *auditFlags) run(cmd *cobra.Command, bundle string) error {
	if f.output != "text" && f.output != "json" {
		return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", f.output), "")
	}
	if f.build.out != "" && !f.rebuild {
		return cli.Usage(errors.New("--out without --rebuild: nothing is built"), "")
	}
	if err := f.trust.check(true); err != nil {
		return cli.Usage(err, "")
	}
	r, err := f.trust.openOne(cmd.Context(), bundle)
	if err != nil {
		return err
	}
	var copies []audit.Copy
	if f.stack != "" {
		c, err := audit.Open("stack", f.stack)
		if err != nil {
			return cli.Usage(err, "name the folder of a boot stack, as kattest build writes it")
		}
		copies = append(copies, c)
	}
	if f.rebuild {
		dir, remove, err := f.rebuilt(cmd.Context(), cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer remove()
		c, err := audit.Open("rebuilt", dir)
		if err != nil {
			return err
		}
		copies = append(copies, c)
	}
	report := audit.Run(r.Release, r.digest(), copies...)
	if f.output == "json" {
		err = writeAuditJSON(cmd.OutOrStdout(), report)
	} else {
		err = writeAudit(cmd.OutOrStdout(), r, report)
	}
	if err != nil || report.Same() {
		return err
	}
	if !f.nothing {
		diffoscope(cmd.Context(), cmd.ErrOrStderr(), report, copies)
	}
	return &cli.Error{Code: cli.ExitMismatch, Err: fmt.Errorf("what was audited is not %s: other than its are %s", r.name(), differing(report))}
}

// rebuilt builds the stack, and returns its folder and what removes it.
func (f *auditFlags) rebuilt(ctx context.Context, log io.Writer) (dir string, remove func(), err error) {
	remove = func() {}
	if f.build.out == "" {
		tmp, err := os.MkdirTemp("", "kattest-audit-*")
		if err != nil {
			return "", nil, err
		}
		remove = func() { _ = os.RemoveAll(tmp) }
		f.build.out = filepath.Join(tmp, "stack")
	}
	options, err := f.build.options(log)
	if err == nil {
		if _, err = reproducible.Build(ctx, options); err != nil {
			err = buildError(err)
		}
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return f.build.out, remove, nil
}

func writeAuditJSON(w io.Writer, report audit.Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}

// diffoscope shows what it finds in the first pair of files that differ.
func diffoscope(ctx context.Context, w io.Writer, report audit.Report, copies []audit.Copy) {
	program, err := exec.LookPath("diffoscope")
	if err != nil {
		return
	}
	dirs := map[string]string{}
	for _, c := range copies {
		dirs[c.Name] = c.Dir
	}
	for _, finding := range report.Findings {
		if finding.Inside == nil || dirs[finding.Other] == "" {
			continue
		}
		fmt.Fprintf(w, "kattest: diffoscope on %s\n", finding.Name)
		cmd := exec.CommandContext(ctx, program, "--text", "-", "--max-text-report-size", "20000", "--",
			filepath.Join(dirs[finding.Copy], finding.Name), filepath.Join(dirs[finding.Other], finding.Name))
		cmd.Stdout, cmd.Stderr = w, w
		// It exits with 1 for files that differ, which these do.
		if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 1 {
			fmt.Fprintf(w, "kattest: warning: diffoscope: %v\n", err)
		}
		return
	}
}

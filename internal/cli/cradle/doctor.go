package cradle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/doctor"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/stack"
)

type doctorFlags struct {
	stack, cpu, sevDevice    string
	record, recorded, output string
}

func newDoctor() *cobra.Command {
	f := doctorFlags{}
	cmd := &cobra.Command{
		Use:   "doctor [DIR]",
		Short: "Say whether this host can launch SEV-SNP guests, and what to do",
		Long: `Examine everything on this host that a launch with SEV-SNP depends on: the
processor, what the BIOS set up, kernel, KVM, the secure processor, QEMU and the
boot stack's firmware. With DIR, for the guest in that folder. What is wrong
comes with what to do about it. 'cradle-snp run' makes the same checks.

The exit status is 0 if no check fails, and 1 if one does. What could not be read
is unknown and fails nothing: run as root to see all.`,
		Example: `  cradle-snp doctor
  cradle-snp doctor --record host.json    # to be sent to someone who knows
  cradle-snp doctor --recorded host.json`,
		Args: cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.stack, "stack", "", "folder of the boot stack (default $KATTEST_STACK, else kattest/stack in the user's data folder)")
	flags.StringVar(&f.cpu, "cpu", vm.DefaultConfig().CPU, "CPU model that QEMU must have")
	flags.StringVar(&f.sevDevice, "sev-device", doctor.DefaultSEVDevice, "the secure processor's device")
	flags.StringVar(&f.record, "record", "", "also write all that the host answered to a file")
	flags.StringVar(&f.recorded, "recorded", "", "examine the host that a file recorded, not this one")
	flags.StringVar(&f.output, "output", "text", "form of the answer: text or json")
	return cmd
}

func (f doctorFlags) run(cmd *cobra.Command, args []string) error {
	if f.output != "text" && f.output != "json" {
		return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", f.output), "")
	}
	report, err := f.examine(cmd.Context(), args)
	if err != nil {
		return err
	}
	if err := writeReport(cmd.OutOrStdout(), f.output, report); err != nil {
		return err
	}
	if !report.Ready {
		return &cli.Silent{Code: cli.ExitInternal}
	}
	return nil
}

func (f doctorFlags) examine(ctx context.Context, args []string) (doctor.Report, error) {
	if f.recorded != "" {
		if len(args) > 0 || f.record != "" {
			return doctor.Report{}, cli.Usage(errors.New("--recorded goes with neither DIR nor --record"), "")
		}
		data, err := cli.ReadFile(f.recorded, doctor.MaxRecording)
		if err != nil {
			return doctor.Report{}, cli.Usage(err, "")
		}
		r, err := doctor.ParseRecording(data)
		if err != nil {
			return doctor.Report{}, cli.Usage(fmt.Errorf("%s: %w", f.recorded, err), "'cradle-snp doctor --record FILE' writes one")
		}
		return doctor.Examine(ctx, r, r.Want), nil
	}
	w, err := f.want(args)
	if err != nil {
		return doctor.Report{}, err
	}
	host := doctor.NewRecorder(doctor.Local{}, w)
	report := doctor.Examine(ctx, host, w)
	if f.record == "" {
		return report, nil
	}
	data, err := host.Encode()
	if err != nil {
		return doctor.Report{}, err
	}
	return report, wholefile.Write(f.record, data, 0o644)
}

// want is the launch that the host is examined for.
func (f doctorFlags) want(args []string) (doctor.Want, error) {
	if len(args) == 0 {
		config := vm.DefaultConfig()
		return doctor.Want{
			CPU: f.cpu, MemoryMiB: config.MemoryMiB, SEVDevice: f.sevDevice,
			Firmware: filepath.Join(stackFolder(f.stack), stack.Firmware),
		}, nil
	}
	v, err := vm.Open(args[0])
	if err != nil {
		return doctor.Want{}, cli.Usage(err, "'cradle-snp summon DIR IMAGE' makes a folder that is whole")
	}
	return launcher.Want(v, f.sevDevice), nil
}

func writeReport(w io.Writer, output string, r doctor.Report) error {
	if output == "json" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tOUTCOME\tFOUND")
	for _, c := range r.Checks {
		outcome := c.Outcome.String()
		if c.Outcome == doctor.Fail || c.Outcome == doctor.Warn {
			outcome = strings.ToUpper(outcome)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Name, outcome, plain(c.Found))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return writeFixes(w, r)
}

// writeFixes says what to do, a fix once, and the verdict.
func writeFixes(w io.Writer, r doctor.Report) error {
	var b strings.Builder
	names := map[string][]string{}
	var fixes []string
	for _, c := range r.Checks {
		if c.Fix == "" {
			continue
		}
		if names[c.Fix] == nil {
			fixes = append(fixes, c.Fix)
		}
		names[c.Fix] = append(names[c.Fix], c.Name)
	}
	for _, fix := range fixes {
		fmt.Fprintf(&b, "\n%s:\n  %s\n", strings.Join(names[fix], ", "), plain(fix))
	}
	switch n := len(r.Failed()); n {
	case 0:
		b.WriteString("\nready: no check fails\n")
	case 1:
		b.WriteString("\nNOT READY: 1 check fails\n")
	default:
		fmt.Fprintf(&b, "\nNOT READY: %d checks fail\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// plain makes one line of what a host, or the recording of one, says.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

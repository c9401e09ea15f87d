package kattest

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/probe"
	"github.com/kraudcloud/kattest/measure"
)

// firmwareMediaType names this version of firmware's JSON.
const firmwareMediaType = "application/vnd.kattest.firmware.v1+json"

// firmwareAnswer is the answer of kattest firmware; docs/firmware.md has its JSON.
type firmwareAnswer struct {
	MediaType string `json:"mediaType"`
	measure.Inspection
	Launchable   bool          `json:"launchable"`
	KernelHashes enforcement   `json:"kernelHashes"`
	Probe        *probe.Result `json:"probe,omitempty"`
}

// enforcement is what is known of a firmware without booting it.
type enforcement struct {
	Verdict probe.Verdict `json:"verdict"`
	Source  string        `json:"source"`
}

// firmwareFlags are the flags of kattest firmware.
type firmwareFlags struct {
	output, accel string
	probe         bool
}

func newFirmware() *cobra.Command {
	var f firmwareFlags
	cmd := &cobra.Command{
		Use:   "firmware FILE",
		Short: "Say what a firmware image is and whether it can be launched",
		Long: `Print the tables of a firmware image, what it can do, and everything that keeps
QEMU from launching an SEV-SNP guest with it, each with its consequence.

A launch digest says nothing about the kernel unless the firmware compares it
with the hash table, and starts nothing beside it. That does not show in the image:
--probe boots it, without SEV, with right and with wrong hashes and with programs
that no hash covers, and keeps the result, so that 'kattest measure' knows it. A probe needs QEMU, and half a minute without KVM.

Exit status: 0 launchable, and with --probe the hashes are enforced; 1 the probe
could not tell; 2 no firmware; 5 not launchable, or the hashes are not enforced.`,
		Example: `  kattest firmware stack/OVMF.fd
  kattest firmware --probe OVMF.fd --output json`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.output, "output", "text", "form of the answer: text or json")
	flags.BoolVar(&f.probe, "probe", false, "boot the image, to see whether it enforces kernel hashes")
	flags.StringVar(&f.accel, "accel", "", "how --probe runs guests: kvm or tcg (default kvm where there is one)")
	return cmd
}

func (f firmwareFlags) run(cmd *cobra.Command, name string) error {
	if f.output != "text" && f.output != "json" {
		return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", f.output), "")
	}
	if f.accel != "" && !f.probe {
		return cli.Usage(errors.New("--accel: nothing is run without --probe"), "")
	}
	var accel launcher.Accel
	if f.accel != "" {
		var err error
		if accel, err = launcher.ParseAccel(f.accel); err != nil {
			return cli.Usage(fmt.Errorf("--accel: %w", err), "")
		}
	}
	image, err := cli.ReadFile(name, measure.MaxFirmware)
	if err != nil {
		return cli.Usage(err, "")
	}
	answer := firmwareAnswer{MediaType: firmwareMediaType}
	if answer.Inspection, err = measure.InspectFirmware(image); err != nil {
		return cli.Usage(fmt.Errorf("%s: %w", name, err), "want an image of OVMF, as for QEMU's -bios")
	}
	answer.Launchable = answer.Inspection.Launchable()
	if f.probe && answer.Abilities.KernelHashes && answer.Launchable {
		if answer.Probe, err = f.runProbe(cmd, image, accel); err != nil {
			return err
		}
	}
	answer.KernelHashes = enforcementOf(cmd.ErrOrStderr(), answer.SHA256)
	if f.output == "json" {
		err = writeJSON(cmd.OutOrStdout(), answer)
	} else {
		err = answer.write(cmd.OutOrStdout())
	}
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return answer.status(f.probe)
}

// status is the exit code: what was asked for is answered on standard output.
func (a firmwareAnswer) status(probed bool) error {
	switch {
	case !a.Launchable, probed && a.Probe == nil:
		return &cli.Silent{Code: cli.ExitMismatch}
	case !probed || a.Probe.Verdict == probe.Enforced:
		return nil
	case a.Probe.Verdict == probe.NotEnforced:
		return &cli.Silent{Code: cli.ExitMismatch}
	default:
		return &cli.Silent{Code: cli.ExitInternal}
	}
}

func (f firmwareFlags) runProbe(cmd *cobra.Command, image []byte, accel launcher.Accel) (*probe.Result, error) {
	progress := func(b probe.Boot) {
		fmt.Fprintf(cmd.ErrOrStderr(), "probe: %s: %v (%.1f s)\n", b.Case, b.Ended, float64(b.Milliseconds)/1000)
	}
	result, err := probe.Run(cmd.Context(), image, probe.Options{Accel: accel, Progress: progress})
	if err != nil {
		return nil, &cli.Error{Code: cli.ExitInternal, Err: err, Hint: "--probe needs " + launcher.QEMU}
	}
	folder, err := probe.Folder()
	if err == nil {
		err = result.Save(folder)
	}
	if err != nil { // the answer stands all the same
		fmt.Fprintf(cmd.ErrOrStderr(), "kattest: warning: %v\n", err)
	}
	return &result, nil
}

// enforcementOf says what is known of a firmware. That its probe's result cannot
// be read is a warning, and as if there were none.
func enforcementOf(stderr io.Writer, sum measure.Hash) enforcement {
	folder, err := probe.Folder()
	if err != nil {
		folder = "" // no cache folder, nothing kept
	}
	verdict, source, err := probe.Enforcement(folder, sum)
	if err != nil {
		fmt.Fprintf(stderr, "kattest: warning: %v\n", err)
	}
	return enforcement{verdict, source}
}

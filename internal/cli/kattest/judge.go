package kattest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release/registry"
	"github.com/kraudcloud/kattest/verifier"
)

// judgeFlags say what is demanded of evidence. verify and attest share them. They
// stand on a policy file: what a flag says replaces what the file does.
type judgeFlags struct {
	policyFlags
	nonce, reportData    string
	measurements         []string
	spec, hostData       string
	vcek, trustSimulated string
	cspIDs               []string
	minTCB, at           string
	vmpl                 uint32
	authenticityOnly     bool
	explainFor           time.Duration
	releases             releaseFlags
	collateral           collateralFlags
	output               outputFlags
	id                   idFlags
	tpm                  tpmFlags

	withoutMeasurement, withoutNonce, withoutHostData, withoutVMPL     bool
	withoutDebug, withoutMigration, withoutCommitted, withoutProviders bool
}

func (f *judgeFlags) register(flags *pflag.FlagSet) {
	f.policyFlags.register(flags)
	f.releases.register(flags)
	flags.StringArrayVar(&f.measurements, "measurement", nil, "launch digest to accept, 96 hexadecimal digits; may be given more than once")
	flags.StringVar(&f.nonce, "nonce", "", "nonce of the challenge, hexadecimal")
	flags.StringVar(&f.reportData, "report-data", "", "REPORT_DATA to expect, 128 hexadecimal digits")
	flags.StringVar(&f.spec, "spec", "", "launch spec of the workload to expect")
	flags.StringVar(&f.hostData, "host-data", "", "HOST_DATA to expect, 64 hexadecimal digits")
	flags.Uint32Var(&f.vmpl, "vmpl", 0, "privilege level to expect, 0 to 3 (default the policy's)")
	flags.StringVar(&f.minTCB, "min-tcb", "", "least TCB in place of the policy's: bootloader=N,tee=N,snp=N,microcode=N and on Turin fmc=N")
	flags.StringArrayVar(&f.cspIDs, "csp-id", nil, "cloud provider that a VLEK may name, beside the policy's; may be given more than once")
	flags.StringVar(&f.vcek, "vcek", "", "certificate of the VCEK or VLEK, DER or PEM, in place of the one with the report")
	flags.StringVar(&f.at, "at", "", "time to judge certificates at, RFC 3339 (default now)")
	flags.StringVar(&f.trustSimulated, "trust-simulated", "", "trust this chain (PEM, ASK then ARK) of a SIMULATED processor, and nothing else")
	flags.BoolVar(&f.authenticityOnly, "authenticity-only", false, "judge signature and certificates alone, and nothing that the report says")
	flags.BoolVar(&f.withoutMeasurement, "without-measurement", false, "accept any boot stack")
	flags.BoolVar(&f.withoutNonce, "without-nonce", false, "accept an answer that may be an old one")
	flags.BoolVar(&f.withoutHostData, "without-host-data", false, "accept any workload")
	flags.BoolVar(&f.withoutVMPL, "without-vmpl", false, "accept any privilege level")
	flags.BoolVar(&f.withoutDebug, "without-debug-check", false, "accept a guest that the host can read")
	flags.BoolVar(&f.withoutMigration, "without-migration-check", false, "accept a guest with a migration agent")
	flags.BoolVar(&f.withoutCommitted, "without-committed-check", false, "accept provisional firmware")
	flags.BoolVar(&f.withoutProviders, "without-csp-id", false, "accept a VLEK of any cloud provider")
	flags.DurationVar(&f.explainFor, "explain", defaultExplainFor, "how long to search for the launch that made a measurement which is not the release's; 0 is not at all")
	f.output.register(flags)
	f.id.register(flags)
	f.tpm.register(flags)
	f.collateral.register(flags)
}

// exclusive are flags that contradict each other, and of which one is needed.
var exclusive = []struct {
	flags []string
	what  string
}{
	{[]string{"release", "measurement", "without-measurement"}, "which boot stack to expect"},
	{[]string{"nonce", "report-data", "without-nonce"}, "which question the report answers"},
	{[]string{"spec", "host-data", "without-host-data"}, "which workload to expect"},
}

// check refuses a command line that contradicts itself or leaves a question
// open. fresh says that the command makes a nonce itself.
func (f *judgeFlags) check(flags *pflag.FlagSet, fresh bool) error {
	if err := f.output.check(); err != nil {
		return cli.Usage(err, "")
	}
	if err := f.load(flags); err != nil {
		return err
	}
	if err := f.releases.check(); err != nil {
		return cli.Usage(err, "")
	}
	if err := f.id.check(flags, f.authenticityOnly, f.base.Policy); err != nil {
		return cli.Usage(err, "")
	}
	if err := f.collateral.check(); err != nil {
		return cli.Usage(err, "")
	}
	if f.collateral.offline && slices.ContainsFunc(f.releases.files, registry.Is) {
		return cli.Usage(errors.New("--offline: a release stands in a registry"), "fetch its bundle before, and name the file")
	}
	if f.vmpl > 3 {
		return cli.Usage(fmt.Errorf("--vmpl: %d is not 0 to 3", f.vmpl), "")
	}
	if slices.Contains(f.cspIDs, "") {
		return cli.Usage(errors.New("--csp-id: empty"), "")
	}
	for _, pair := range [][2]string{{"csp-id", "without-csp-id"}, {"vmpl", "without-vmpl"}} {
		if flags.Changed(pair[0]) && flags.Changed(pair[1]) {
			return cli.Usage(fmt.Errorf("--%s and --%s contradict each other", pair[0], pair[1]), "")
		}
	}
	for _, group := range exclusive {
		var given []string
		for _, name := range group.flags {
			if flags.Changed(name) {
				given = append(given, "--"+name)
			}
		}
		switch {
		case f.authenticityOnly && len(given) > 0:
			return cli.Usage(fmt.Errorf("--authenticity-only and %s contradict each other", given[0]), "")
		case len(given) > 1:
			return cli.Usage(fmt.Errorf("%s contradict each other", strings.Join(given, " and ")), "give one")
		case len(given) == 0 && !f.authenticityOnly && !f.answers(group.flags[0]) && (!fresh || group.flags[0] != "nonce"):
			return cli.Usage(fmt.Errorf("nothing says %s", group.what), "give one of --"+strings.Join(group.flags, ", --"))
		}
	}
	return nil
}

// policy reads what the flags name. Every error is a usage error but a
// release's bad signature.
func (f *judgeFlags) policy(cmd *cobra.Command) (verifier.Policy, error) {
	p := f.merged(cmd.Flags())
	readReleases := func(p *verifier.Policy) error { return f.releases.read(cmd.Context(), p, cmd.ErrOrStderr()) }
	for _, read := range []func(*verifier.Policy) error{f.readValues, f.readCertificates, f.readSpec, readReleases, f.id.read, f.tpm.read, f.collateral.read} {
		if err := read(&p); err != nil {
			if _, ok := errors.AsType[*cli.Error](err); ok {
				return verifier.Policy{}, err
			}
			return verifier.Policy{}, cli.Usage(err, "")
		}
	}
	return p, nil
}

func (f *judgeFlags) readValues(p *verifier.Policy) error {
	var err error
	if f.at != "" {
		if p.Time, err = time.Parse(time.RFC3339, f.at); err != nil {
			return fmt.Errorf("--at: %q is not a time such as 2026-01-31T12:00:00Z", f.at)
		}
	}
	if f.nonce != "" {
		if p.Nonce, err = hex.DecodeString(f.nonce); err != nil || len(p.Nonce) < evidence.MinNonce || len(p.Nonce) > evidence.MaxNonce {
			return fmt.Errorf("--nonce: want %d to %d bytes in hexadecimal", evidence.MinNonce, evidence.MaxNonce)
		}
	}
	if f.reportData != "" {
		p.ReportData = new([64]byte)
		if err := readHex(p.ReportData[:], "--report-data", f.reportData); err != nil {
			return err
		}
	}
	if f.hostData != "" {
		p.HostData = new([32]byte)
		if err := readHex(p.HostData[:], "--host-data", f.hostData); err != nil {
			return err
		}
	}
	for _, text := range f.measurements {
		digest, err := measure.ParseDigest(text)
		if err != nil {
			return fmt.Errorf("--measurement: %w", err)
		}
		p.References = append(p.References, verifier.Reference{Measurement: digest, Label: "the digest given"})
	}
	if f.minTCB != "" {
		return f.readMinTCB(p)
	}
	return nil
}

func readHex(to []byte, flag, text string) error {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(to) {
		return fmt.Errorf("%s: want %d hexadecimal digits", flag, 2*len(to))
	}
	copy(to, b)
	return nil
}

func (f *judgeFlags) readCertificates(p *verifier.Policy) error {
	if f.vcek != "" {
		data, err := cli.ReadFile(f.vcek, evidence.MaxCertificates)
		if err != nil {
			return err
		}
		if p.VCEK, err = verifier.ParseCertificate(data); err != nil {
			return fmt.Errorf("--vcek %s: %w", f.vcek, err)
		}
	}
	if f.trustSimulated != "" {
		data, err := cli.ReadFile(f.trustSimulated, evidence.MaxCertificates)
		if err != nil {
			return err
		}
		if p.Simulated, err = verifier.ParseSimulatedChain(data); err != nil {
			return fmt.Errorf("--trust-simulated %s: %w", f.trustSimulated, err)
		}
	}
	return nil
}

func (f *judgeFlags) readSpec(p *verifier.Policy) error {
	if f.spec == "" {
		return nil
	}
	_, hostData, err := readSpecFile(f.spec)
	if err != nil {
		return err
	}
	p.HostData = (*[32]byte)(&hostData)
	return nil
}

// readSpecFile reads a launch spec, and what HOST_DATA must hold for it.
func readSpecFile(name string) (spec pod.Spec, hostData pod.Hash, err error) {
	data, err := cli.ReadFile(name, pod.MaxSize)
	if err != nil {
		return pod.Spec{}, pod.Hash{}, err
	}
	if spec, err = pod.ParseText(data); err == nil {
		hostData, err = spec.HostData()
	}
	if err != nil {
		return pod.Spec{}, pod.Hash{}, fmt.Errorf("%s: %w", name, err)
	}
	return spec, hostData, nil
}

// verifier returns one that asks for collateral where the flags say. A simulated
// processor's chain is whole: nothing is asked of anyone.
func (f *judgeFlags) verifier(stderr io.Writer) (*verifier.Verifier, error) {
	if f.trustSimulated != "" {
		return verifier.New(nil), nil
	}
	source, err := f.collateral.source(stderr)
	if err != nil {
		return nil, cli.Usage(err, "")
	}
	return verifier.New(source), nil
}

// judge prints the verdicts and returns the exit code that goes with the worst.
func (f *judgeFlags) judge(cmd *cobra.Command, all []subject, many bool, p verifier.Policy) error {
	judge, err := f.verifier(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	results, err := judgeAll(cmd.Context(), judge, all, p)
	if err != nil {
		return err
	}
	for i := range results {
		f.explainMismatch(cmd.Context(), &results[i], cmd.ErrOrStderr())
	}
	if err := f.output.write(cmd.OutOrStdout(), results, many, f.digest); err != nil {
		return err
	}
	return exit(results)
}

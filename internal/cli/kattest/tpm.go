package kattest

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

func newTPM() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tpm",
		Short: "Put together and challenge what a virtual TPM answers",
		Long: `Virtual TPMs of SEV-SNP guests say by quotes what was started above the code that the
report measures. 'kattest verify' judges such evidence (docs/spec/tpm.md).`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return cli.Usage(errors.New("which command: pack or credential"), "see 'kattest tpm --help'")
		},
	}
	cmd.AddCommand(newTPMPack(), newTPMCredential())
	return cmd
}

// packFlags name the files of vTPM evidence.
type packFlags struct {
	hcl                                         string
	report, nonce, manifest, ak                 string
	quote, signature, pcrs, eventLog, certTable string
}

func newTPMPack() *cobra.Command {
	var f packFlags
	cmd := &cobra.Command{
		Use:   "pack",
		Short: "Put a guest's report, quote and event log together",
		Long: `Read what a guest's tools wrote, check its form, and write TPM evidence to standard
output: of an Azure confidential VM its HCL report (--hcl), of a guest with an SVSM the
answer of its service attestation (--report, --nonce, --manifest) and its AK. It judges
nothing.`,
		Example: `  kattest tpm pack --hcl hcl.bin --quote quote.msg --signature quote.sig --pcrs pcrs.bin \
      --event-log /sys/kernel/security/tpm0/binary_bios_measurements >evidence.json`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := f.evidence()
			if err != nil {
				return cli.Usage(err, "see 'kattest tpm pack --help'")
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(e)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.hcl, "hcl", "", "Azure's HCL report: NV index 0x01400001 of the TPM")
	flags.StringVar(&f.report, "report", "", "report of an SVSM's service attestation, 1184 bytes")
	flags.StringVar(&f.nonce, "nonce", "", "nonce that the SVSM was given, hexadecimal; zeros are put behind it, to 64 bytes")
	flags.StringVar(&f.manifest, "manifest", "", "manifest of the vTPM, or of all the SVSM's services")
	flags.StringVar(&f.ak, "ak", "", "public area of the AK, TPMT_PUBLIC or TPM2B_PUBLIC")
	flags.StringVar(&f.quote, "quote", "", "quote, TPMS_ATTEST")
	flags.StringVar(&f.signature, "signature", "", "the quote's signature, TPMT_SIGNATURE")
	flags.StringVar(&f.pcrs, "pcrs", "", "values of the PCRs that are quoted, one after the other")
	flags.StringVar(&f.eventLog, "event-log", "", "event log of the firmware")
	flags.StringVar(&f.certTable, "certificates", "", "certificate table that came with the report")
	return cmd
}

// evidence reads the files. An error names the file.
func (f *packFlags) evidence() (evidence.TPM, error) {
	e := evidence.TPM{MediaType: evidence.TPMMediaType}
	var quote evidence.Quote
	var svsm evidence.SVSM
	for _, file := range []struct {
		name string
		to   *[]byte
	}{
		{f.hcl, &e.HCL},
		{f.certTable, &e.Certificates},
		{f.eventLog, &e.EventLog},
		{f.report, &svsm.Report},
		{f.manifest, &svsm.Manifest},
		{f.ak, &svsm.AK},
		{f.quote, &quote.Message},
		{f.signature, &quote.Signature},
		{f.pcrs, &quote.PCRs},
	} {
		if file.name == "" {
			continue
		}
		data, err := cli.ReadFile(file.name, evidence.MaxSize)
		if err != nil {
			return evidence.TPM{}, err
		}
		*file.to = data
	}
	switch given(f.quote, f.signature, f.pcrs) {
	case 0:
	case 3:
		e.Quote = &quote
	default:
		return evidence.TPM{}, errors.New("want --quote, --signature and --pcrs, or none of them")
	}
	switch given(f.report, f.nonce, f.manifest, f.ak) {
	case 0:
	case 4:
		nonce, err := hex.DecodeString(f.nonce)
		if err != nil || len(nonce) < evidence.MinNonce || len(nonce) > vtpm.NonceSize {
			return evidence.TPM{}, fmt.Errorf("--nonce: want %d to %d bytes in hexadecimal", evidence.MinNonce, vtpm.NonceSize)
		}
		svsm.Nonce = append(nonce, make([]byte, vtpm.NonceSize-len(nonce))...)
		svsm.AK = withoutSize(svsm.AK)
		e.SVSM = &svsm
	default:
		return evidence.TPM{}, errors.New("want --report, --nonce, --manifest and --ak, or none of them")
	}
	if (f.hcl == "") == (e.SVSM == nil) {
		return evidence.TPM{}, errors.New("want either --hcl or --report")
	}
	data, err := json.Marshal(e)
	if err != nil {
		return evidence.TPM{}, err
	}
	if _, err := verifier.ParseInput(data); err != nil { // what verify could not read
		return evidence.TPM{}, err
	}
	return e, nil
}

func given(values ...string) (n int) {
	for _, v := range values {
		if v != "" {
			n++
		}
	}
	return n
}

// withoutSize returns the TPMT_PUBLIC in a TPM2B_PUBLIC, whose size is before it.
func withoutSize(public []byte) []byte {
	if len(public) > 2 && int(binary.BigEndian.Uint16(public)) == len(public)-2 {
		return public[2:]
	}
	return public
}

package kattest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/corim"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/render"
)

// showMediaType names this version of show's JSON.
const showMediaType = "application/vnd.kattest.report.v1+json"

// shown is a report or a CoRIM for reading. It is not judged.
type shown struct {
	MediaType string  `json:"mediaType"`
	Fields    []field `json:"fields"`
}

type field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func newShow() *cobra.Command {
	var output, key string
	cmd := &cobra.Command{
		Use:   "show REPORT",
		Short: "Print every field of a report, without judging it",
		Long: `Print every field of REPORT, its bits spelled out: a report of 1184 bytes, one
with its certificate table, evidence or vTPM evidence in JSON, or an HCL report; - is
standard input. Nothing is judged: anyone can write these bytes.

Of a CoRIM, as 'kattest measure --corim' writes it, it prints the reference values,
and with --key checks that the key has signed it; exit status 3 if not.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", output), "")
			}
			data, err := readData(cmd, args[0], max(verifier.MaxInput, corim.MaxSize))
			if err != nil {
				return err
			}
			show := showInput
			if corim.Is(data) {
				show = func(name string, data []byte) (shown, string, error) {
					return showCoRIM(cmd.Context(), name, data, key)
				}
			} else if key != "" {
				return cli.Usage(errors.New("--key: "+args[0]+" is no CoRIM"), "see 'kattest verify' for a report")
			}
			answer, note, err := show(args[0], data)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), answer)
			}
			return answer.write(cmd.OutOrStdout(), note)
		},
	}
	cmd.Flags().StringVar(&output, "output", "text", "form of the answer: text or json")
	cmd.Flags().StringVar(&key, "key", "", "public key that must have signed a CoRIM: PEM file, or NAME://KEY of a KMS")
	return cmd
}

// write writes the fields as a table, and a note below.
func (s shown) write(w io.Writer, note string) error {
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range s.Fields {
		fmt.Fprintf(table, "%s\t%s\n", f.Name, render.Plain(f.Value))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\n%s\n", note)
	_, err := w.Write(b.Bytes())
	return err
}

func showInput(name string, data []byte) (shown, string, error) {
	in, err := parseInput(name, data)
	return shown{showMediaType, inputFields(in)}, "not judged: see 'kattest verify'", err
}

// readInput reads what is to be shown: a file, or standard input for "-".
func readInput(cmd *cobra.Command, name string) (verifier.Input, error) {
	data, err := readData(cmd, name, verifier.MaxInput)
	if err != nil {
		return verifier.Input{}, err
	}
	return parseInput(name, data)
}

func readData(cmd *cobra.Command, name string, limit int64) (data []byte, err error) {
	if name == "-" {
		data, err = cli.ReadAll("standard input", cmd.InOrStdin(), limit)
	} else {
		data, err = cli.ReadFile(name, limit)
	}
	if err != nil {
		return nil, cli.Usage(err, "")
	}
	return data, nil
}

func parseInput(name string, data []byte) (verifier.Input, error) {
	in, err := verifier.ParseInput(data)
	if err != nil {
		return verifier.Input{}, cli.Usage(fmt.Errorf("%s: %w", name, err), "want a report of 1184 bytes, one with its certificate table, or evidence in JSON")
	}
	return in, nil
}

func inputFields(in verifier.Input) []field {
	fields := reportFields(in.Report)
	for i, e := range in.Certificates.Entries {
		value := fmt.Sprintf("%d bytes", len(e.Data))
		if cert, err := verifier.ParseCertificate(e.Data); err == nil {
			value = fmt.Sprintf("%q, issued by %q, %s to %s", cert.Subject.CommonName, cert.Issuer.CommonName,
				cert.NotBefore.UTC().Format("2006-01-02"), cert.NotAfter.UTC().Format("2006-01-02"))
		}
		fields = append(fields, field{fmt.Sprintf("certificate %d (%s)", i, e.Name()), value})
	}
	if in.TPM != nil {
		fields = append(fields, tpmFields(in.TPM)...)
	}
	if e := in.Evidence; e != nil {
		fields = append(fields, field{"evidence nonce", e.Nonce.String()}, field{"evidence public key", hex.EncodeToString(e.PublicKey)})
		for i, event := range e.Events {
			fields = append(fields, field{fmt.Sprintf("event %d", i), fmt.Sprintf("%q: %q", event.Name, event.Value)})
		}
	}
	return fields
}

func reportFields(r verifier.Report) []field {
	product, err := r.Product()
	processor := fmt.Sprintf("%v (family 0x%x, model 0x%x, stepping 0x%x)", product, r.Family, r.Model, r.Stepping)
	if err != nil {
		processor = err.Error()
	}
	signer := []string{"SIGNING_KEY " + r.SignerInfo.SigningKey().String()}
	if r.SignerInfo.MaskChipKey() {
		signer = append(signer, "MASK_CHIP_KEY")
	}
	if r.SignerInfo.AuthorKey() {
		signer = append(signer, "AUTHOR_KEY_EN")
	}
	raw := r.Bytes()
	return []field{
		{"VERSION", fmt.Sprint(r.Version)},
		{"GUEST_SVN", fmt.Sprint(r.GuestSVN)},
		{"POLICY", r.Policy.String()},
		{"FAMILY_ID", hex.EncodeToString(r.FamilyID[:])},
		{"IMAGE_ID", hex.EncodeToString(r.ImageID[:])},
		{"VMPL", fmt.Sprint(r.VMPL)},
		{"SIGNATURE_ALGO", fmt.Sprintf("%d (ECDSA P-384 with SHA-384)", r.SignatureAlgo)},
		{"CURRENT_TCB", tcbText(r.CurrentTCB, product)},
		{"PLATFORM_INFO", r.PlatformInfo.String()},
		{"SIGNER_INFO", fmt.Sprintf("0x%x (%s)", uint32(r.SignerInfo), strings.Join(signer, ", "))},
		{"REPORT_DATA", hex.EncodeToString(r.ReportData[:])},
		{"MEASUREMENT", r.Measurement.String()},
		{"HOST_DATA", hex.EncodeToString(r.HostData[:])},
		{"ID_KEY_DIGEST", orNone(r.IDKeyDigest[:], "no ID block")},
		{"AUTHOR_KEY_DIGEST", orNone(r.AuthorKeyDigest[:], "no author key")},
		{"REPORT_ID", hex.EncodeToString(r.ReportID[:])},
		{"REPORT_ID_MA", hex.EncodeToString(r.ReportIDMA[:])},
		{"REPORTED_TCB", tcbText(r.ReportedTCB, product)},
		{"processor", processor},
		{"CHIP_ID", orNone(r.ChipID[:], "masked")},
		{"COMMITTED_TCB", tcbText(r.CommittedTCB, product)},
		{"CURRENT firmware", r.Current.String()},
		{"COMMITTED firmware", r.Committed.String()},
		{"LAUNCH_TCB", tcbText(r.LaunchTCB, product)},
		{"LAUNCH_MIT_VECTOR", fmt.Sprintf("0x%x", r.LaunchMitVector)},
		{"CURRENT_MIT_VECTOR", fmt.Sprintf("0x%x", r.CurrentMit)},
		{"SIGNATURE", hex.EncodeToString(raw[0x2a0:0x330])},
	}
}

// tcbText spells a TCB out. Reports of version 2 do not name their product;
// Turin's first reports are of version 3, so that theirs is the older layout.
func tcbText(v verifier.TCBVersion, product verifier.Product) string {
	if product == verifier.UnknownProduct {
		product = verifier.Milan
	}
	tcb, err := v.Decode(product)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%x (%v)", v[:], tcb)
}

func orNone(b []byte, zero string) string {
	for _, x := range b {
		if x != 0 {
			return hex.EncodeToString(b)
		}
	}
	return "zero: " + zero
}

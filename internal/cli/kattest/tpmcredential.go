package kattest

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// credentialMediaType names this version of the file that keeps a secret.
const credentialMediaType = "application/vnd.kattest.tpm-credential.v1+json"

// maxCredential is the largest such file that is read, in bytes.
const maxCredential = 64 << 10

// credential is what the verifier keeps. It is documented in docs/spec/tpm.md.
type credential struct {
	MediaType string       `json:"mediaType"`
	EK        []byte       `json:"ek"`     // public area (TPMT_PUBLIC)
	AKName    evidence.Hex `json:"akName"` // TPM2B_NAME without its size
	Secret    evidence.Hex `json:"secret"` // 32 bytes
}

func parseCredential(data []byte) (verifier.TPMCredential, error) {
	var c credential
	if err := strictjson.Decode(data, &c); err != nil {
		return verifier.TPMCredential{}, err
	}
	if c.MediaType != credentialMediaType {
		return verifier.TPMCredential{}, fmt.Errorf("mediaType: %q, want %q", c.MediaType, credentialMediaType)
	}
	if len(c.Secret) != vtpm.CredentialSize || len(c.EK) == 0 || len(c.AKName) == 0 {
		return verifier.TPMCredential{}, fmt.Errorf("ek, akName, secret: want each, and a secret of %d bytes", vtpm.CredentialSize)
	}
	return verifier.TPMCredential{EK: c.EK, AKName: c.AKName, Secret: [vtpm.CredentialSize]byte(c.Secret)}, nil
}

func newTPMCredential() *cobra.Command {
	var blob, keep string
	cmd := &cobra.Command{
		Use:   "credential EVIDENCE",
		Short: "Make the secret that binds an AK to the EK of an SVSM's report",
		Long: `An SVSM's report binds the endorsement key (EK) of its vTPM and not the key that signs
quotes (AK). Make a secret that only a TPM with that EK can read, and only with that AK
in it, for the guest whose TPM EVIDENCE is given, with or without a quote. The guest
activates the credential and quotes with the secret as its extra data; then 'kattest
verify --tpm-credential' judges the new evidence.

It judges nothing, and the secret is good for one answer.`,
		Example: `  kattest tpm credential evidence.json --credential credential.bin --keep credential.json`,
		Args:    cli.Args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if blob == "" || keep == "" {
				return cli.Usage(errors.New("want --credential and --keep"), "see 'kattest tpm credential --help'")
			}
			data, err := cli.ReadFile(args[0], evidence.MaxSize)
			if err != nil {
				return err
			}
			forGuest, forUs, err := makeCredential(data)
			if err != nil {
				return cli.Usage(fmt.Errorf("%s: %w", args[0], err), "")
			}
			if err := writePrivate(keep, forUs); err != nil {
				return cli.Usage(err, "")
			}
			return wholefile.Write(blob, forGuest, 0o644)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&blob, "credential", "", "file to write for the guest, as tpm2_activatecredential reads it")
	flags.StringVar(&keep, "keep", "", "file to write for --tpm-credential, which must not exist; it holds the secret")
	return cmd
}

func makeCredential(data []byte) (forGuest, forUs []byte, err error) {
	e, err := evidence.ParseTPM(data)
	if err != nil {
		return nil, nil, err
	}
	if e.SVSM == nil {
		return nil, nil, errors.New("not of an SVSM: an HCL report binds the AK itself")
	}
	ek, err := vtpm.ParseManifest(e.SVSM.Manifest)
	if err != nil {
		return nil, nil, err
	}
	ak, err := vtpm.ParseAK(e.SVSM.AK)
	if err != nil {
		return nil, nil, err
	}
	var secret [vtpm.CredentialSize]byte
	_, _ = rand.Read(secret[:]) // never fails, by its documentation
	if forGuest, err = vtpm.MakeCredential(rand.Reader, ek, ak, secret); err != nil {
		return nil, nil, err
	}
	forUs, err = json.Marshal(credential{MediaType: credentialMediaType, EK: ek, AKName: ak.Name(), Secret: secret[:]})
	return forGuest, append(forUs, '\n'), err
}

package kattest

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// tpmFlags say what is demanded of a virtual TPM.
type tpmFlags struct {
	pcrs       []string
	withoutAny bool
	credential string
}

func (f *tpmFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.pcrs, "pcr", nil, "value that a PCR of a virtual TPM must have, BANK:INDEX=HEX; may be given more than once, for one PCR too")
	flags.BoolVar(&f.withoutAny, "without-pcrs", false, "accept a virtual TPM's quote of any values")
	flags.StringVar(&f.credential, "tpm-credential", "", "what 'kattest tpm credential' wrote for itself: the secret that the quote of an SVSM's guest must hold")
}

// read adds to the policy what the flags say; their PCRs replace the file's.
func (f *tpmFlags) read(p *verifier.Policy) error {
	if len(f.pcrs) > 0 && f.withoutAny {
		return errors.New("--pcr and --without-pcrs contradict each other")
	}
	p.WithoutPCRs = f.withoutAny
	if len(f.pcrs)+len(f.credential) == 0 {
		return nil
	}
	tpm := verifier.TPMPolicy{}
	if p.TPM != nil {
		tpm = *p.TPM
	}
	if len(f.pcrs) > 0 {
		tpm.PCRs = map[vtpm.PCR][][]byte{}
	}
	for _, text := range f.pcrs {
		pcr, value, err := vtpm.ParsePCRValue(text)
		if err != nil {
			return fmt.Errorf("--pcr: %w", err)
		}
		tpm.PCRs[pcr] = append(tpm.PCRs[pcr], value)
	}
	if f.credential != "" {
		data, err := cli.ReadFile(f.credential, maxCredential)
		if err != nil {
			return err
		}
		c, err := parseCredential(data)
		if err != nil {
			return fmt.Errorf("--tpm-credential %s: %w", f.credential, err)
		}
		tpm.Credential = &c
	}
	p.TPM = &tpm
	return nil
}

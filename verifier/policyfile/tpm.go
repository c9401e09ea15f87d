package policyfile

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

const tpmSection = "tpm"

// tpmSettings are of a virtual TPM. Where one of them stands, a quote is demanded.
func tpmSettings() []setting {
	codes := []verifier.Code{verifier.CodeTPMPolicy}
	return []setting{
		{
			section: tpmSection, name: "pcrs", values: "list of BANK:INDEX=HEX", optional: true, codes: codes,
			meaning: "values of registers; one that stands more than once may have each of them",
			read: func(d *decoder, v value, f *File) {
				p := f.tpm()
				p.PCRs = map[vtpm.PCR][][]byte{}
				for _, e := range d.entries(v, "a list of BANK:INDEX=HEX") {
					if text, ok := d.text(e, "BANK:INDEX=HEX"); ok {
						pcr, digest, err := vtpm.ParsePCRValue(text)
						if err != nil {
							d.errorf(e, "%w", err)
							continue
						}
						p.PCRs[pcr] = append(p.PCRs[pcr], digest)
					}
				}
			},
			write: func(f *File) string {
				if f.Policy.TPM == nil {
					return ""
				}
				var all []string
				for _, pcr := range slices.SortedFunc(maps.Keys(f.Policy.TPM.PCRs), vtpm.PCR.Compare) {
					for _, digest := range f.Policy.TPM.PCRs[pcr] {
						all = append(all, fmt.Sprintf("%v=%s", pcr, hex.EncodeToString(digest)))
					}
				}
				return listOr("", all, func(s string) string { return s })
			},
		},
		{
			section: tpmSection, name: "quoted", values: "list of BANK:INDEX", optional: true, codes: codes,
			meaning: "registers that must be quoted, whatever their values",
			read: func(d *decoder, v value, f *File) {
				p := f.tpm()
				p.Quoted = nil
				for _, e := range d.entries(v, "a list of BANK:INDEX") {
					if text, ok := d.text(e, "BANK:INDEX"); ok {
						pcr, err := vtpm.ParsePCR(text)
						if err != nil {
							d.errorf(e, "%w", err)
						}
						p.Quoted = append(p.Quoted, pcr)
					}
				}
			},
			write: func(f *File) string {
				if f.Policy.TPM == nil {
					return ""
				}
				return listOr("", f.Policy.TPM.Quoted, vtpm.PCR.String)
			},
		},
		{
			section: tpmSection, name: "event-log", values: "required, any", optional: true, codes: codes,
			meaning: "whether the firmware's event log must be there; one that is there is judged in any case",
			read: func(d *decoder, v value, f *File) {
				f.tpm().EventLog = d.oneOf(v, requiredWord, anyWord) == requiredWord
			},
			write: func(f *File) string {
				switch {
				case f.Policy.TPM == nil:
					return ""
				case f.Policy.TPM.EventLog:
					return requiredWord
				default:
					return anyWord
				}
			},
		},
	}
}

// tpm returns what is demanded of a virtual TPM, for it to be changed.
func (f *File) tpm() *verifier.TPMPolicy {
	p := verifier.TPMPolicy{}
	if f.Policy.TPM != nil {
		p = *f.Policy.TPM
	}
	f.Policy.TPM = &p
	return f.Policy.TPM
}

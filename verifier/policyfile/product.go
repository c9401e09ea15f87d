package policyfile

import (
	"fmt"

	"github.com/kraudcloud/kattest/verifier"
)

// productField is a field of each product.
type productField struct {
	name, values, meaning string
	codes                 []verifier.Code
	read                  func(d *decoder, v value, p verifier.Product, to *verifier.ProductPolicy)
	write                 func(p verifier.Product, from verifier.ProductPolicy) string
	explain               func(from verifier.ProductPolicy, s subject) answer
}

func productSetting(name string) (productField, bool) {
	for _, s := range productSettings() {
		if s.name == name {
			return s, true
		}
	}
	return productField{}, false
}

func productSettings() []productField {
	return []productField{
		levelsField("reported", "the TCB for which the certificate speaks", verifier.CodeReportedTCB,
			func(p *verifier.ProductPolicy) *verifier.TCB { return &p.Reported },
			func(r verifier.Report) verifier.TCBVersion { return r.ReportedTCB }),
		levelsField("committed", "the TCB down to which a rollback can go", verifier.CodeCommittedTCB,
			func(p *verifier.ProductPolicy) *verifier.TCB { return &p.Committed },
			func(r verifier.Report) verifier.TCBVersion { return r.CommittedTCB }),
		levelsField("launch", "the TCB at which the guest was launched", verifier.CodeLaunchTCB,
			func(p *verifier.ProductPolicy) *verifier.TCB { return &p.Launch },
			func(r verifier.Report) verifier.TCBVersion { return r.LaunchTCB }),
		{
			name: "firmware", values: "any, MAJOR.MINOR.BUILD",
			meaning: "the least version of the SNP firmware, current and committed",
			codes:   []verifier.Code{verifier.CodeFirmware},
			read: func(d *decoder, v value, _ verifier.Product, to *verifier.ProductPolicy) {
				var n [3]byte
				if v.word() != anyWord {
					d.numbers(v, n[:])
				}
				to.Firmware = verifier.FirmwareVersion{Major: n[0], Minor: n[1], Build: n[2]}
			},
			write: func(_ verifier.Product, from verifier.ProductPolicy) string {
				if from.Firmware == (verifier.FirmwareVersion{}) {
					return anyWord
				}
				return from.Firmware.String()
			},
			explain: explainFirmware,
		},
		mitigationsField("launch-mitigations", "the bits of LAUNCH_MIT_VECTOR that must be set", verifier.CodeLaunchMit,
			func(p *verifier.ProductPolicy) *uint64 { return &p.LaunchMitigations },
			func(r verifier.Report) uint64 { return r.LaunchMitVector }),
		mitigationsField("current-mitigations", "the bits of CURRENT_MIT_VECTOR that must be set", verifier.CodeCurrentMit,
			func(p *verifier.ProductPolicy) *uint64 { return &p.CurrentMitigations },
			func(r verifier.Report) uint64 { return r.CurrentMit }),
	}
}

func levelsField(name, meaning string, code verifier.Code, of func(*verifier.ProductPolicy) *verifier.TCB, in func(verifier.Report) verifier.TCBVersion) productField {
	return productField{
		name: name, values: "least levels, {bootloader, tee, snp, microcode} and on Turin fmc, each 0 to 255", meaning: meaning,
		codes: []verifier.Code{code},
		read: func(d *decoder, v value, p verifier.Product, to *verifier.ProductPolicy) {
			d.levels(v, p, of(to))
		},
		write: func(p verifier.Product, from verifier.ProductPolicy) string { return writeLevels(p, *of(&from)) },
		explain: func(from verifier.ProductPolicy, s subject) answer {
			version := in(s.Report)
			tcb, err := version.Decode(s.product)
			if err != nil {
				return answer{found: err.Error()}
			}
			text := writeLevels(s.product, tcb)
			return answer{found: text, passes: tcb.AtLeast(*of(&from)), needs: text}
		},
	}
}

func mitigationsField(name, meaning string, code verifier.Code, of func(*verifier.ProductPolicy) *uint64, in func(verifier.Report) uint64) productField {
	return productField{
		name: name, values: "number of 64 bits", meaning: meaning,
		codes: []verifier.Code{code},
		read: func(d *decoder, v value, _ verifier.Product, to *verifier.ProductPolicy) {
			*of(to) = d.number(v, 1<<64-1)
		},
		write: func(_ verifier.Product, from verifier.ProductPolicy) string { return fmt.Sprintf("0x%x", *of(&from)) },
		explain: func(from verifier.ProductPolicy, s subject) answer {
			found := in(s.Report)
			a := answer{found: fmt.Sprintf("0x%x", found), passes: *of(&from)&^found == 0, needs: fmt.Sprintf("0x%x", found)}
			if s.Version < 5 {
				a.found = fmt.Sprintf("none in a report of version %d", s.Version)
			}
			return a
		},
	}
}

package policyfile

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/verifier"
)

// setting is one field of the file.
type setting struct {
	section, name string // section is "" at the top
	values        string // what may be written
	meaning       string
	// optional says that the default has no value for it.
	optional bool
	codes    []verifier.Code // the checks that it decides; none where it decides how they are made
	read     func(d *decoder, v value, f *File)
	write    func(f *File) string // as the file has it, "" where it is unset
	explain  func(f *File, s subject) answer
}

// path is where the field stands in the file.
func (s setting) path() string {
	if s.section == "" {
		return s.name
	}
	return s.section + "." + s.name
}

const (
	productsSection = "products"
	guestSection    = "guest-policy"
	platformSection = "platform"
	blockSection    = "id-block"
	releasesSection = "releases"
)

// settings are the fields in the order of the file, those of a product aside.
func settings() []setting {
	return slices.Concat(topSettings(), guestSettings(), platformSettings(), blockSettings(), expectedSettings(), tpmSettings(), releaseSettings())
}

func topSettings() []setting {
	return []setting{
		{
			name: "revocation", values: "required, if-available, off",
			meaning: "what the lack of a revocation list in date means",
			codes:   []verifier.Code{verifier.CodeCRL, verifier.CodeRevocation},
			read: func(d *decoder, v value, f *File) {
				if text, ok := d.text(v, "required, if-available or off"); ok {
					rule, err := verifier.ParseRevocation(text)
					if err != nil {
						d.errorf(v, "%w", err)
					}
					f.Policy.Revocation = rule
				}
			},
			write: func(f *File) string { return f.Policy.Revocation.String() },
		},
		{
			name: "provisional", values: "refuse, allow",
			meaning: "firmware whose owner can go back to an older one",
			codes:   []verifier.Code{verifier.CodeProvisional},
			read: func(d *decoder, v value, f *File) {
				word := d.oneOf(v, refuseWord, allowWord)
				f.Policy.WithoutCommitted = word == allowWord
			},
			write:   func(f *File) string { return allowed(f.Policy.WithoutCommitted, refuseWord) },
			explain: explainProvisional,
		},
		{
			name: "vmpl", values: "0 to 3, any",
			meaning: "the privilege level at which the report was asked for",
			codes:   []verifier.Code{verifier.CodeVMPL},
			read: func(d *decoder, v value, f *File) {
				if f.Policy.WithoutVMPL = v.word() == anyWord; !f.Policy.WithoutVMPL {
					f.Policy.VMPL = uint32(d.number(v, 3))
				}
			},
			write: func(f *File) string {
				if f.Policy.WithoutVMPL {
					return anyWord
				}
				return fmt.Sprint(f.Policy.VMPL)
			},
			explain: func(f *File, s subject) answer {
				return answer{found: fmt.Sprint(s.VMPL), passes: f.Policy.WithoutVMPL || s.VMPL == f.Policy.VMPL, needs: fmt.Sprint(s.VMPL)}
			},
		},
		{
			name: "chips", values: "any, list of CHIP_IDs (128 hexadecimal digits)",
			meaning: "the processors that are accepted",
			codes:   []verifier.Code{verifier.CodeAllowedChip},
			read:    readChips,
			write: func(f *File) string {
				return listOr(anyWord, f.Policy.Chips, func(id [64]byte) string { return hex.EncodeToString(id[:]) })
			},
			explain: explainChip,
		},
		{
			name: "csp-ids", values: "none, any, list of names",
			meaning: "the cloud providers whose VLEKs are accepted",
			codes:   []verifier.Code{verifier.CodeCSPID},
			read:    readCSPIDs,
			write: func(f *File) string {
				if f.Policy.WithoutCSPID {
					return anyWord
				}
				return listOr(noneWord, f.Policy.CSPIDs, func(s string) string { return s })
			},
			explain: explainCSPID,
		},
		{
			name: "migration-agents", values: "none, list of REPORT_IDs (64 hexadecimal digits)",
			meaning: "the migration agents that are accepted",
			codes:   []verifier.Code{verifier.CodeMigrationAgent},
			read:    readAgents,
			write: func(f *File) string {
				return listOr(noneWord, f.Policy.MigrationAgents, func(id [32]byte) string { return hex.EncodeToString(id[:]) })
			},
			explain: explainAgent,
		},
	}
}

// allowed writes a relaxation that stands or does not.
func allowed(yes bool, otherwise string) string {
	if yes {
		return allowWord
	}
	return otherwise
}

func listOr[T any](word string, all []T, text func(T) string) string {
	if len(all) == 0 {
		return word
	}
	return writeList(all, text)
}

func readChips(d *decoder, v value, f *File) {
	f.Policy.Chips = nil
	if v.word() == anyWord {
		return
	}
	for _, e := range d.entries(v, "any or a list of CHIP_IDs") {
		var id [64]byte
		if d.hex(e, id[:]); id == [64]byte{} {
			d.errorf(e, "zero is a masked CHIP_ID, and no chip's")
		}
		f.Policy.Chips = append(f.Policy.Chips, id)
	}
}

func readCSPIDs(d *decoder, v value, f *File) {
	f.Policy.CSPIDs = nil
	f.Policy.WithoutCSPID = v.word() == anyWord
	if word := v.word(); word != anyWord && word != noneWord {
		f.Policy.CSPIDs = d.texts(v, "none, any or a list of names")
	}
}

func readAgents(d *decoder, v value, f *File) {
	f.Policy.MigrationAgents = nil
	if v.word() == noneWord {
		return
	}
	for _, e := range d.entries(v, "none or a list of REPORT_IDs") {
		var id [32]byte
		d.hex(e, id[:])
		f.Policy.MigrationAgents = append(f.Policy.MigrationAgents, id)
	}
}

// guestSettings are the ABI and the bits of the guest policy, by AMD's names.
func guestSettings() []setting {
	all := []setting{
		{
			section: guestSection, name: "DEBUG", values: "forbidden, allow",
			meaning: "the host can read and change the guest's memory",
			codes:   []verifier.Code{verifier.CodeDebug},
			read: func(d *decoder, v value, f *File) {
				word := d.oneOf(v, forbiddenWord, allowWord)
				f.Policy.WithoutDebug = word == allowWord
			},
			write:   func(f *File) string { return allowed(f.Policy.WithoutDebug, forbiddenWord) },
			explain: explainForbidden(verifier.PolicyDebug, func(f *File) bool { return f.Policy.WithoutDebug }),
		},
		{
			section: guestSection, name: "MIGRATE_MA", values: "forbidden, allow",
			meaning: "a migration agent can move the guest",
			codes:   []verifier.Code{verifier.CodeMigration},
			read: func(d *decoder, v value, f *File) {
				word := d.oneOf(v, forbiddenWord, allowWord)
				f.Policy.WithoutMigration = word == allowWord
			},
			write:   func(f *File) string { return allowed(f.Policy.WithoutMigration, forbiddenWord) },
			explain: explainForbidden(verifier.PolicyMigrateMA, func(f *File) bool { return f.Policy.WithoutMigration }),
		},
		{
			section: guestSection, name: "abi", values: "any, MAJOR.MINOR",
			meaning: "the least version of the firmware's ABI that the guest must demand",
			codes:   []verifier.Code{verifier.CodePolicyABI},
			read: func(d *decoder, v value, f *File) {
				var n [2]byte
				if v.word() != anyWord {
					d.numbers(v, n[:])
				}
				f.Policy.MinimumABI = verifier.ABIVersion{Major: n[0], Minor: n[1]}
			},
			write: func(f *File) string {
				if f.Policy.MinimumABI == (verifier.ABIVersion{}) {
					return anyWord
				}
				return quote(f.Policy.MinimumABI.String())
			},
			explain: explainABI,
		},
	}
	for bit := range 64 {
		mask := verifier.GuestPolicy(1) << bit
		if mask == verifier.PolicyDebug || mask == verifier.PolicyMigrateMA || mask == verifier.PolicyReserved1 {
			continue
		}
		if names := mask.Names(); len(names) == 1 && !strings.HasPrefix(names[0], "bit ") {
			all = append(all, bitSetting(guestSection, names[0], guestMeaning(mask), verifier.CodePolicyBits, uint64(mask), func(f *File) bits {
				return bits{(*uint64)(&f.Policy.RequiredBits), (*uint64)(&f.Policy.ForbiddenBits)}
			}, func(s subject) uint64 { return uint64(s.Policy) }))
		}
	}
	return all
}

func platformSettings() []setting {
	var all []setting
	for bit := range 64 {
		mask := verifier.PlatformInfo(1) << bit
		if names := mask.Names(); len(names) == 1 && !strings.HasPrefix(names[0], "bit ") {
			all = append(all, bitSetting(platformSection, names[0], platformMeaning(mask), verifier.CodePlatform, uint64(mask), func(f *File) bits {
				return bits{(*uint64)(&f.Policy.RequiredPlatform), (*uint64)(&f.Policy.ForbiddenPlatform)}
			}, func(s subject) uint64 { return uint64(s.PlatformInfo) }))
		}
	}
	return all
}

func guestMeaning(bit verifier.GuestPolicy) string {
	switch bit {
	case verifier.PolicySMT:
		return "the guest may run with SMT"
	case verifier.PolicySingleSocket:
		return "the guest runs on one socket only"
	case verifier.PolicyCXLAllow:
		return "the guest may run with CXL"
	case verifier.PolicyMemAES256XTS:
		return "memory is encrypted with AES-256-XTS"
	case verifier.PolicyRAPLDisable:
		return "the guest runs only where power is not metered (RAPL)"
	case verifier.PolicyCiphertextHidingDRAM:
		return "the guest runs only where ciphertext is hidden"
	case verifier.PolicyPageSwapDisable:
		return "the host cannot swap or move the guest's pages"
	default:
		return "this bit of the guest policy"
	}
}

func platformMeaning(bit verifier.PlatformInfo) string {
	switch bit {
	case verifier.PlatformSMT:
		return "SMT is on"
	case verifier.PlatformTSME:
		return "all memory is encrypted"
	case verifier.PlatformECC:
		return "memory has error correction"
	case verifier.PlatformRAPLDisabled:
		return "power is not metered (RAPL)"
	case verifier.PlatformCiphertextHidingDRAM:
		return "ciphertext in memory is hidden"
	case verifier.PlatformAliasCheck:
		return "no two addresses are the same memory"
	case verifier.PlatformTIO:
		return "trusted I/O is on"
	default:
		return "this bit of PLATFORM_INFO"
	}
}

// bits are those that are demanded set, and those demanded clear.
type bits struct{ required, forbidden *uint64 }

func bitSetting(section, name, meaning string, code verifier.Code, mask uint64, of func(*File) bits, in func(subject) uint64) setting {
	return setting{
		section: section, name: name, values: "required, forbidden, any", meaning: meaning,
		codes: []verifier.Code{code},
		read: func(d *decoder, v value, f *File) {
			b := of(f)
			*b.required &^= mask
			*b.forbidden &^= mask
			switch word := d.oneOf(v, requiredWord, forbiddenWord, anyWord); word {
			case requiredWord:
				*b.required |= mask
			case forbiddenWord:
				*b.forbidden |= mask
			}
		},
		write: func(f *File) string {
			switch b := of(f); {
			case *b.required&mask != 0:
				return requiredWord
			case *b.forbidden&mask != 0:
				return forbiddenWord
			default:
				return anyWord
			}
		},
		explain: func(f *File, s subject) answer {
			b, set := of(f), in(s)&mask != 0
			a := answer{found: "clear", passes: *b.required&mask == 0, needs: anyWord}
			if set {
				a.found, a.passes = "set", *b.forbidden&mask == 0
			}
			return a
		},
	}
}

func blockSettings() []setting {
	return []setting{
		keySetting("id-keys", "the keys of which one must have signed the ID block", verifier.CodeIDKey,
			func(f *File) *[]idblock.KeyDigest { return &f.Policy.IDKeys },
			func(s subject) idblock.KeyDigest { return s.IDKeyDigest }),
		keySetting("author-keys", "the keys of which one must have signed the ID key", verifier.CodeAuthorKey,
			func(f *File) *[]idblock.KeyDigest { return &f.Policy.AuthorKeys },
			func(s subject) idblock.KeyDigest {
				if !s.SignerInfo.AuthorKey() {
					return idblock.KeyDigest{}
				}
				return s.AuthorKeyDigest
			}),
		labelSetting("family-id", "FAMILY_ID of the ID block", verifier.CodeFamilyID,
			func(f *File) **[16]byte { return &f.Policy.FamilyID },
			func(s subject) [16]byte { return s.FamilyID }),
		labelSetting("image-id", "IMAGE_ID of the ID block", verifier.CodeImageID,
			func(f *File) **[16]byte { return &f.Policy.ImageID },
			func(s subject) [16]byte { return s.ImageID }),
		{
			section: blockSection, name: "guest-svn", values: "0 to 4294967295",
			meaning: "the least GUEST_SVN of the ID block",
			codes:   []verifier.Code{verifier.CodeGuestSVN},
			read: func(d *decoder, v value, f *File) {
				f.Policy.MinimumGuestSVN = uint32(d.number(v, 1<<32-1))
			},
			write: func(f *File) string { return fmt.Sprint(f.Policy.MinimumGuestSVN) },
			explain: func(f *File, s subject) answer {
				return answer{found: fmt.Sprint(s.GuestSVN), passes: s.GuestSVN >= f.Policy.MinimumGuestSVN, needs: fmt.Sprint(s.GuestSVN)}
			},
		},
	}
}

func keySetting(name, meaning string, code verifier.Code, of func(*File) *[]idblock.KeyDigest, in func(subject) idblock.KeyDigest) setting {
	return setting{
		section: blockSection, name: name, values: "any, list of digests (96 hexadecimal digits) or PEM files", meaning: meaning,
		codes: []verifier.Code{code},
		read: func(d *decoder, v value, f *File) {
			keys := of(f)
			*keys = nil
			if v.word() == anyWord {
				return
			}
			for _, e := range d.entries(v, "any or a list of keys") {
				*keys = append(*keys, d.key(e))
			}
		},
		write: func(f *File) string { return listOr(anyWord, *of(f), idblock.KeyDigest.String) },
		explain: func(f *File, s subject) answer {
			digest, keys := in(s), *of(f)
			a := answer{found: digest.String(), passes: len(keys) == 0 || slices.Contains(keys, digest), needs: writeTexts([]string{digest.String()})}
			if digest == (idblock.KeyDigest{}) {
				a.found, a.needs, a.passes = noneWord, anyWord, len(keys) == 0
			}
			return a
		},
	}
}

func labelSetting(name, meaning string, code verifier.Code, of func(*File) **[16]byte, in func(subject) [16]byte) setting {
	return setting{
		section: blockSection, name: name, values: "any, 32 hexadecimal digits", meaning: meaning,
		codes: []verifier.Code{code},
		read: func(d *decoder, v value, f *File) {
			label := of(f)
			*label = nil
			if v.word() == anyWord {
				return
			}
			*label = new([16]byte)
			d.hex(v, (*label)[:])
		},
		write: func(f *File) string {
			if label := *of(f); label != nil {
				return quote(hex.EncodeToString(label[:]))
			}
			return anyWord
		},
		explain: func(f *File, s subject) answer {
			label, id := *of(f), in(s)
			text := hex.EncodeToString(id[:])
			return answer{found: text, passes: label == nil || *label == id, needs: quote(text)}
		},
	}
}

// expectedSettings are of a launch and a workload. The default has none: they
// are given on the command line, or here.
func expectedSettings() []setting {
	return []setting{
		{
			name: "measurements", values: "list of launch digests (96 hexadecimal digits)", optional: true,
			meaning: "the boot stacks that are accepted",
			codes:   []verifier.Code{verifier.CodeMeasurement},
			read: func(d *decoder, v value, f *File) {
				f.Policy.References = nil
				for _, e := range d.entries(v, "a list of launch digests") {
					var digest measure.Digest
					d.hex(e, digest[:])
					f.Policy.References = append(f.Policy.References, verifier.Reference{Measurement: digest, Label: referenceLabel})
				}
			},
			write: func(f *File) string {
				return listOr("", f.Policy.References, func(r verifier.Reference) string { return r.Measurement.String() })
			},
			explain: explainMeasurement,
		},
		{
			name: "host-data", values: "64 hexadecimal digits", optional: true,
			meaning: "HOST_DATA, the digest of the workload's launch spec",
			codes:   []verifier.Code{verifier.CodeHostData},
			read: func(d *decoder, v value, f *File) {
				f.Policy.HostData = new([32]byte)
				d.hex(v, f.Policy.HostData[:])
			},
			write: func(f *File) string {
				if f.Policy.HostData == nil {
					return ""
				}
				return quote(hex.EncodeToString(f.Policy.HostData[:]))
			},
			explain: explainHostData,
		},
	}
}

// referenceLabel is what a result says of a digest that the file names.
const referenceLabel = "a digest of the policy file"

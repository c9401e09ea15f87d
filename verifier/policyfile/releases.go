package policyfile

import (
	"encoding/hex"
	"fmt"
	"math"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/verifier"
)

// releaseSettings name releases. What they say together is checked by who opens them.
func releaseSettings() []setting {
	return []setting{
		namesSetting("bundles", "list of files", "the releases whose launches are accepted", func(r *Releases) *[]string { return &r.Bundles }),
		namesSetting("keys", "list of PEM files or NAME://KEY", "the keys of which one must have signed each", func(r *Releases) *[]string { return &r.Keys }),
		textSetting("identity", "text", "the identity that may have signed without a key", func(r *Releases) *string { return &r.Identity }),
		textSetting("identity-pattern", "regular expression", "the same by a pattern of all of it", func(r *Releases) *string { return &r.IdentityPattern }),
		textSetting("issuer", "text", "the issuer that vouches for the identity", func(r *Releases) *string { return &r.Issuer }),
		textSetting("issuer-pattern", "regular expression", "the same by a pattern of all of it", func(r *Releases) *string { return &r.IssuerPattern }),
		textSetting("trusted-root", "file", "sigstore's trusted root, for identities", func(r *Releases) *string { return &r.TrustedRoot }),
		textSetting("log", "file", "the trusted root of the log in which a key's signature must stand", func(r *Releases) *string { return &r.Log }),
		numberSetting("min-serial", "the least serial of a release", math.MaxInt64,
			func(r *Releases) uint64 { return r.MinSerial }, func(r *Releases, n uint64) { r.MinSerial = n }),
		namesSetting("revocations", "list of files", "the publishers' lists of revoked releases", func(r *Releases) *[]string { return &r.Revocations }),
		revokedSetting(),
		numberSetting("vcpus", "the number of vCPUs that the launch must have", measure.MaxVCPUs,
			func(r *Releases) uint64 { return uint64(r.VCPUs) }, func(r *Releases, n uint64) { r.VCPUs = int(n) }),
	}
}

// releaseSetting is a setting of releases: optional, and explained by none, as a
// report does not name its release.
func releaseSetting(name, values, meaning string) setting {
	return setting{
		section: releasesSection, name: name, values: values, meaning: meaning,
		optional: true, codes: []verifier.Code{verifier.CodeMeasurement},
	}
}

func namesSetting(name, values, meaning string, of func(*Releases) *[]string) setting {
	s := releaseSetting(name, values, meaning)
	s.read = func(d *decoder, v value, f *File) { *of(&f.Releases) = d.texts(v, "a "+values) }
	s.write = func(f *File) string {
		return listOr("", *of(&f.Releases), func(s string) string { return s })
	}
	return s
}

func textSetting(name, values, meaning string, of func(*Releases) *string) setting {
	s := releaseSetting(name, values, meaning)
	s.read = func(d *decoder, v value, f *File) {
		*of(&f.Releases), _ = d.text(v, "a "+values)
	}
	s.write = func(f *File) string {
		if text := *of(&f.Releases); text != "" {
			return quote(text)
		}
		return ""
	}
	return s
}

func numberSetting(name, meaning string, maximum uint64, get func(*Releases) uint64, set func(*Releases, uint64)) setting {
	s := releaseSetting(name, fmt.Sprintf("1 to %d", maximum), meaning)
	s.read = func(d *decoder, v value, f *File) {
		before := len(d.errs)
		n := d.number(v, maximum)
		if n == 0 && len(d.errs) == before {
			d.errorf(v, "want 1 to %d", maximum)
		}
		set(&f.Releases, n)
	}
	s.write = func(f *File) string {
		if n := get(&f.Releases); n != 0 {
			return fmt.Sprint(n)
		}
		return ""
	}
	return s
}

func revokedSetting() setting {
	s := releaseSetting("revoked", "list of SHA-256 (64 hexadecimal digits)", "releases that are not accepted, by their statements")
	s.read = func(d *decoder, v value, f *File) {
		f.Releases.Revoked = nil
		for _, e := range d.entries(v, "a "+s.values) {
			var sum [32]byte
			d.hex(e, sum[:])
			f.Releases.Revoked = append(f.Releases.Revoked, sum)
		}
	}
	s.write = func(f *File) string {
		return listOr("", f.Releases.Revoked, func(sum [32]byte) string { return hex.EncodeToString(sum[:]) })
	}
	return s
}

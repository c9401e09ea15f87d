package kattest

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/verifier"
)

// releaseFlags name the releases of which a report must be a launch.
type releaseFlags struct {
	trustFlags
	files []string
	vcpus int

	releases []signedRelease // that were read, the revoked ones included
}

func (f *releaseFlags) register(flags *pflag.FlagSet) {
	f.trustFlags.register(flags)
	flags.StringArrayVar(&f.files, "release", nil, "release whose launches to accept: a bundle, or oci://HOST/REPOSITORY:TAG; may be given more than once")
	flags.IntVar(&f.vcpus, "vcpus", 0, "number of vCPUs that the release's launch must have (default any)")
}

// check refuses what contradicts itself.
func (f *releaseFlags) check() error {
	if f.vcpus < 0 || f.vcpus > measure.MaxVCPUs || f.vcpus != 0 && len(f.files) == 0 {
		return fmt.Errorf("--vcpus: want 1 to %d, with --release", measure.MaxVCPUs)
	}
	return f.trustFlags.check(len(f.files) > 0)
}

// read opens the releases and adds their launches to the policy, whose time it
// takes: those of the tables, and those that Compute finds. One that is revoked
// is warned of and adds none.
func (f *releaseFlags) read(ctx context.Context, p *verifier.Policy, stderr io.Writer) error {
	if len(f.files) == 0 {
		return nil
	}
	t, err := f.load(ctx, p.Time)
	if err != nil {
		return err
	}
	f.releases = nil
	for _, file := range f.files {
		all, err := t.releases(ctx, file)
		if err != nil {
			return err
		}
		f.releases = append(f.releases, all...)
	}
	current := f.current()
	var claims []release.Enforcement // warned of
	for _, r := range f.releases {
		switch {
		case r.revoked != "":
			fmt.Fprintf(stderr, "kattest: warning: %s, is left out, as it is revoked: %s\n", r.name(), r.revoked)
		case !slices.Contains(claims, r.KernelHashes):
			claims = append(claims, r.KernelHashes)
			warnUnverified(stderr, r.KernelHashes)
		}
	}
	for _, r := range current {
		for _, e := range r.Table {
			p.References = append(p.References, r.reference(e, ""))
		}
	}
	p.VCPUs = f.vcpus
	p.Compute = computeLaunches(current, f.vcpus)
	return nil
}

// current returns the releases that are not revoked.
func (f *releaseFlags) current() []signedRelease {
	return slices.DeleteFunc(slices.Clone(f.releases), func(r signedRelease) bool { return r.revoked != "" })
}

// reference is a launch of the release, with its publisher's demands on the guest
// policy.
func (r signedRelease) reference(e release.Entry, note string) verifier.Reference {
	if r.KernelHashes != release.Enforced {
		note += fmt.Sprintf("; the release says %q of its firmware's kernel hashes: the kernel may be another", r.KernelHashes)
	}
	return verifier.Reference{
		Measurement: e.Measurement, VCPUs: e.VCPUs,
		Label:        fmt.Sprintf("%s: %v, %d vCPUs, CPU %v (signature 0x%x), guest features 0x%x%s", r.name(), e.VMM, e.VCPUs, e.Shape().CPU, e.CPUSignature, e.GuestFeatures, note),
		RequiredBits: verifier.GuestPolicy(r.Policy.Required), ForbiddenBits: verifier.GuestPolicy(r.Policy.Forbidden),
	}
}

// lists returns the release whose table has the digest, one that is not revoked
// if there is one.
func (f *releaseFlags) lists(d measure.Digest) (found signedRelease, ok bool) {
	for _, r := range f.releases {
		if len(r.Find(d)) > 0 && (!ok || r.revoked == "") {
			found, ok = r, true
		}
	}
	return found, ok
}

package kattest

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/verifier/policyfile"
)

// policyFlags name the policy on which the other flags stand.
type policyFlags struct {
	file string
}

func (f *policyFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "policy", "", "policy file, YAML or JSON (default what 'kattest policy init' writes)")
}

// base returns the policy of the file, or the default. Names of files in it are
// made relative to the current folder.
func (f *policyFlags) base() (policyfile.File, error) {
	if f.file == "" {
		return policyfile.Default()
	}
	data, err := cli.ReadFile(f.file, policyfile.MaxSize)
	if err != nil {
		return policyfile.File{}, cli.Usage(fmt.Errorf("--policy: %w", err), "")
	}
	dir := filepath.Dir(f.file)
	policy, err := policyfile.Parse(data, func(name string) ([]byte, error) {
		return cli.ReadFile(beside(dir, name), 64<<10)
	})
	if err != nil {
		return policyfile.File{}, cli.Usage(fmt.Errorf("%s: %w", f.file, err), "docs/spec/policy.md has every field, and 'kattest policy init' writes the default")
	}
	r := &policy.Releases
	for _, names := range [][]string{r.Bundles, r.Keys, r.Revocations} {
		for i, name := range names {
			names[i] = beside(dir, name)
		}
	}
	if r.TrustedRoot != "" {
		r.TrustedRoot = beside(dir, r.TrustedRoot)
	}
	return policy, nil
}

// beside returns a name that a file in dir gives. A KMS reference is no file.
func beside(dir, name string) string {
	if filepath.IsAbs(name) || strings.Contains(name, "://") {
		return name
	}
	return filepath.Join(dir, name)
}

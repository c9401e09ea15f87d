package kattest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/release/registry"
	"github.com/kraudcloud/kattest/measure/stack"
)

func newPublish() *cobra.Command {
	var client registry.Client
	var dir string
	cmd := &cobra.Command{
		Use:   "publish BUNDLE... oci://HOST/REPOSITORY:TAG",
		Short: "Put a release into a registry: bundles that refer to a boot stack",
		Long: `Attach bundles, as measure --sign, sbom --sign and provenance --sign write them, to
what the reference names in an OCI registry, where verify --release oci://… reads
them and cosign finds them. --stack puts a boot stack there first, under that tag,
and takes only bundles that are about its files; without it the reference must name
something that is there.

Published a second time, nothing changes. The answer is the reference of the subject
and of each bundle by their digests. Credentials are those of docker's configuration.`,
		Example: `  kattest publish release.json sbom.json provenance.json oci://registry.example/boot-stack:v3 --stack stack
  kattest verify report.bin --release oci://registry.example/boot-stack:v3 --key release.pub`,
		Args: cli.Args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			bundles, to := args[:len(args)-1], args[len(args)-1]
			if !registry.Is(to) {
				return cli.Usage(fmt.Errorf("the last argument is %q, and no reference in a registry", to), "name one: oci://HOST/REPOSITORY:TAG")
			}
			return publish(cmd, client, bundles, to, dir)
		},
	}
	cmd.Flags().StringVar(&dir, "stack", "", "boot stack to put there")
	registerRegistry(cmd.Flags(), &client)
	return cmd
}

// publish reads everything before it writes anything.
func publish(cmd *cobra.Command, client registry.Client, files []string, to, dir string) error {
	type statement struct {
		bundle []byte
		kind   string
	}
	var all []statement
	for _, file := range files {
		data, err := cli.ReadFile(file, release.MaxBundle)
		if err != nil {
			return cli.Usage(err, "")
		}
		kind, err := isAbout(data, dir)
		if err != nil {
			return cli.Usage(fmt.Errorf("%s: %w", file, err), "")
		}
		all = append(all, statement{data, kind})
	}
	ctx, subject := cmd.Context(), to
	if dir != "" {
		var err error
		if subject, err = client.PushStack(ctx, to, dir); err != nil {
			return registryError(err, "")
		}
	}
	lines := []string{subject}
	for _, s := range all {
		name, err := client.Attach(ctx, subject, s.bundle, s.kind)
		if err != nil {
			return registryError(err, "put a boot stack there with --stack, or name what is there")
		}
		lines = append(lines, name+" "+s.kind)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(lines, "\n"))
	return err
}

// isAbout returns the predicate type of a bundle, which must be about the files of
// the stack in dir where there is one.
func isAbout(bundle []byte, dir string) (predicateType string, err error) {
	claim, err := release.Claims(bundle)
	if err != nil || dir == "" {
		return claim.PredicateType, err
	}
	s, err := stack.Read(dir)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, f := range s.Files {
		if got, ok := claim.Subjects[f.Name]; !ok || got.String() != f.SHA256 {
			errs = append(errs, fmt.Errorf("it is not about the stack's %s", f.Name))
		}
	}
	if claim.PredicateType == release.PredicateType {
		r, err := release.ParseStatement(claim.Statement)
		if err == nil && (r.Cmdline != s.Cmdline || r.Lock != s.Lock) {
			err = errors.New("it is of another command line or lock file than the stack")
		}
		errs = append(errs, err)
	}
	return claim.PredicateType, errors.Join(errs...)
}

// registryError gives a registry's failure its exit code; other errors are of what
// the user named.
func registryError(err error, missing string) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	failed, ok := errors.AsType[*registry.Error](err)
	if !ok {
		return cli.Usage(err, "")
	}
	e := &cli.Error{Code: cli.ExitUnavailable, Err: err}
	if failed.Missing() {
		e.Hint = missing
	}
	return e
}

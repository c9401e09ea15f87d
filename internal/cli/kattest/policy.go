package kattest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/policyfile"
)

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Write, check and understand what is demanded of a report",
		Long: `A policy file says what is demanded of a report, as far as it is kept: products and
their least firmware, bits, keys, releases. 'kattest verify --policy FILE' judges by
it; without one, by the default, which is strict.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return cli.Usage(errors.New("which command: init, check or explain"), "see 'kattest policy --help'")
		},
	}
	cmd.AddCommand(newPolicyInit(), newPolicyCheck(), newPolicyExplain())
	return cmd
}

func newPolicyInit() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write the default policy, with comments",
		Long: `Write the default policy with its comments to FILE, which must not exist, or to
standard output. What is deleted from it stays as strict as it was.`,
		Example: `  kattest policy init policy.yaml`,
		Args:    cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "-" {
				_, err := io.WriteString(cmd.OutOrStdout(), policyfile.DefaultText)
				return err
			}
			if err := writeNew(args[0], []byte(policyfile.DefaultText)); err != nil {
				return cli.Usage(err, "")
			}
			return nil
		},
	}
}

func newPolicyCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Read a policy file and tell where it is not the default",
		Long: `Read the policy FILE as verify does, with the keys that it names, and print every
field in which it is not as the default. Releases are not opened.

Exit status: 0 the file is good, 2 it is not.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := (&policyFlags{file: args[0]}).read()
			if err != nil {
				return err
			}
			differences := f.Differences(policyfile.Default())
			if len(differences) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "as the default")
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "FIELD\tHERE\tDEFAULT")
			for _, d := range differences {
				fmt.Fprintf(table, "%s\t%s\t%s\n", d.Field, orUnset(d.Here), orUnset(d.There))
			}
			return table.Flush()
		},
	}
}

func orUnset(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// explainMediaType names this version of explain's JSON.
const explainMediaType = "application/vnd.kattest.policy-explanation.v1+json"

// policyExplanation is documented in docs/spec/policy.md.
type policyExplanation struct {
	MediaType string `json:"mediaType"`
	policyfile.Explanation
}

// policyExplainFlags are those of kattest policy explain.
type policyExplainFlags struct {
	policyFlags
	product, vcek, output string
}

func newPolicyExplain() *cobra.Command {
	var f policyExplainFlags
	cmd := &cobra.Command{
		Use:   "explain REPORT",
		Short: "Show which TCB and bits a report has, and which policy it would need",
		Long: `Hold REPORT against each field of the policy: what it demands, what the report has,
and whether that would pass. Then print the policy file that the report would need,
with the report's own TCB as the least: lines that relax the policy are marked.
REPORT is as for verify; - is standard input.

NOTHING IS JUDGED: anyone can write these bytes, and neither signature nor certificate
is looked at. That a report needs a lower minimum is no reason to grant it: what is
below the default's can be broken by its host.

Reports of version 2 do not name their product: --product does, or the certificate.

Exit status: 0 explained, whatever the report has; 2 bad input.`,
		Example: `  kattest policy explain evidence.json
  kattest policy explain report.bin --policy policy.yaml --output json`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	f.register(flags)
	flags.StringVar(&f.product, "product", "", "the report's product, where it does not name it: Milan, Genoa or Turin")
	flags.StringVar(&f.vcek, "vcek", "", "certificate of the VCEK or VLEK, DER or PEM, in place of the one with the report")
	flags.StringVar(&f.output, "output", "text", "form of the answer: text or json")
	return cmd
}

func (f *policyExplainFlags) run(cmd *cobra.Command, name string) error {
	if f.output != "text" && f.output != "json" {
		return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", f.output), "")
	}
	policy, err := f.read()
	if err != nil {
		return err
	}
	in, err := readInput(cmd, name)
	if err != nil {
		return err
	}
	s, err := f.subject(cmd.Context(), in)
	if err != nil {
		return cli.Usage(err, "")
	}
	e := policyfile.Explain(policy, s)
	if f.output == "json" {
		return writeJSON(cmd.OutOrStdout(), policyExplanation{explainMediaType, e})
	}
	_, err = cmd.OutOrStdout().Write(explanationText(e))
	return err
}

// subject adds to a report what its certificate alone tells: the product of one
// of version 2, and a VLEK's provider.
func (f *policyExplainFlags) subject(ctx context.Context, in verifier.Input) (policyfile.Subject, error) {
	p := verifier.Policy{Time: time.Now(), Revocation: verifier.RevocationOff}
	if f.vcek != "" {
		data, err := cli.ReadFile(f.vcek, evidence.MaxCertificates)
		if err != nil {
			return policyfile.Subject{}, err
		}
		if p.VCEK, err = verifier.ParseCertificate(data); err != nil {
			return policyfile.Subject{}, fmt.Errorf("--vcek %s: %w", f.vcek, err)
		}
	}
	r, err := verifier.New(nil).Verify(ctx, in, p)
	if _, refused := errors.AsType[*verifier.Refusal](err); err != nil && !refused {
		return policyfile.Subject{}, err
	}
	s := policyfile.Subject{Report: in.Report, Product: r.Product}
	for _, c := range r.Checks {
		if c.Code == verifier.CodeCSPID {
			s.CSPID = c.Found
		}
	}
	if f.product == "" {
		return s, nil
	}
	named, err := verifier.ParseProduct(f.product)
	if err != nil {
		return policyfile.Subject{}, fmt.Errorf("--product: %w", err)
	}
	if s.Product != verifier.UnknownProduct && s.Product != named {
		return policyfile.Subject{}, fmt.Errorf("--product %v: the report is of a %v", named, s.Product)
	}
	s.Product = named
	return s, nil
}

func explanationText(e policyfile.Explanation) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "NOT JUDGED: anyone can write a report; see 'kattest verify'")
	fmt.Fprintln(&b)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FIELD\tPOLICY\tREPORT\tWOULD PASS")
	for _, row := range e.Fields {
		passes := "yes"
		switch {
		case row.Default == "":
			passes = "to be given"
		case !row.Passes:
			passes = "NO"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", row.Field, orUnset(row.Default), shortened(row.Found), passes)
	}
	_ = table.Flush() // into memory
	unknown := e.Product == verifier.UnknownProduct
	what := "A policy that this report passes:"
	if unknown {
		what = "The report does not name its product, on which the layout of its TCB depends:\n--product or --vcek does. A policy that it passes but for these levels:"
	}
	fmt.Fprintf(&b, "\n%s\n\n%s\n", what, e.Policy)
	switch {
	case len(e.Relaxes) > 0:
		fmt.Fprintf(&b, "IT RELAXES THE POLICY: %s\n", strings.Join(e.Relaxes, ", "))
	case unknown:
		fmt.Fprintln(&b, "It relaxes nothing, as far as can be said.")
	default:
		fmt.Fprintln(&b, "It relaxes nothing: the report passes the policy as it is.")
	}
	return b.Bytes()
}

// shortened cuts what would widen the table, as brief does, but levels.
func shortened(s string) string {
	if strings.HasPrefix(s, "{") {
		return s
	}
	return brief(s)
}

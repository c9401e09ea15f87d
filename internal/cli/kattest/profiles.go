package kattest

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
)

const profilesMediaType = "application/vnd.kattest.profiles.v1+json"

// profileRow is a profile in the answer of kattest profiles.
type profileRow struct {
	Profile       measure.Profile `json:"profile"`
	Default       bool            `json:"default"` // what its name alone stands for
	Technology    string          `json:"technology"`
	Host          string          `json:"host"`
	GuestFeatures uint64          `json:"guestFeatures"`
	Differs       string          `json:"differs"`
	Source        string          `json:"source"`
}

func newProfiles() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "profiles",
		Short: "List the VMMs whose launches can be measured",
		Long: `List the profiles that --vmm takes: VMMs, at versions, as ways of launching, with
what each differs in from qemu@6.11 and where that is known from. A name without
a version stands for the one marked with *.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rows := profileRows()
			switch output {
			case "json":
				return writeJSON(cmd.OutOrStdout(), struct {
					MediaType string       `json:"mediaType"`
					Profiles  []profileRow `json:"profiles"`
				}{profilesMediaType, rows})
			case "text":
				return writeProfiles(cmd.OutOrStdout(), rows)
			default:
				return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", output), "")
			}
		},
	}
	cmd.Flags().StringVar(&output, "output", "text", "form of the answer: text or json")
	return cmd
}

func profileRows() []profileRow {
	var rows []profileRow
	for _, p := range measure.Profiles() {
		d := p.Describe()
		usual, err := measure.ParseProfile(d.Name)
		rows = append(rows, profileRow{p, err == nil && usual == p, d.Technology.String(), d.Host, d.GuestFeatures, d.Differs, d.Source})
	}
	return rows
}

func writeProfiles(w io.Writer, rows []profileRow) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "PROFILE\tTECHNOLOGY\tFEATURES\tDIFFERS FROM qemu@6.11 IN")
	for _, r := range rows {
		mark := ""
		if r.Default {
			mark = "*"
		}
		fmt.Fprintf(tw, "%v%s\t%s\t%#x\t%s\n", r.Profile, mark, r.Technology, r.GuestFeatures, r.Differs)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := fmt.Fprintf(w, "\n%v\n  hosts   %s\n  source  %s\n", r.Profile, r.Host, r.Source); err != nil {
			return err
		}
	}
	return nil
}

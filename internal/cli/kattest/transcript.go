package kattest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/transcript"
)

// writeTranscript prints the steps of the one launch that is meant.
func (f measureFlags) writeTranscript(w io.Writer, in inputs, shapes []measure.Shape) error {
	t, err := in.transcript(shapes)
	if err != nil {
		return cli.Usage(err, "")
	}
	if f.output == "text" {
		return writeSteps(w, t)
	}
	b, err := t.Encode()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func (in inputs) transcript(shapes []measure.Shape) (transcript.Transcript, error) {
	if len(shapes) != 1 {
		return transcript.Transcript{}, fmt.Errorf("--transcript: %d launches, want one", len(shapes))
	}
	if in.image != nil {
		return transcript.Transcript{}, fmt.Errorf("--transcript: %v has no chain: its digest is one SHA-256", shapes[0].VMM)
	}
	return transcript.New(in.firmware, in.hashes, shapes[0])
}

func writeSteps(w io.Writer, t transcript.Transcript) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "STEP\tWHAT\tTYPE\tGPA\tPAGES\tCONTENTS\tDIGEST AFTER")
	for i, s := range t.Steps {
		fmt.Fprintf(tw, "%d\t%s\t%v\t%#x-%#x\t%d\t%s\t%v\n", i, s.What, s.Type, s.GPA, s.End()-1, s.Pages, contents(s), s.State)
	}
	return tw.Flush()
}

// contents is what is measured of a step's contents.
func contents(s measure.Step) string {
	switch {
	case s.Contents != (measure.Digest{}):
		return s.Contents.String()
	case s.Type.Measured():
		return "not known"
	default:
		return "-"
	}
}

const diffMediaType = "application/vnd.kattest.transcript-diff.v1+json"

// runDiff says where two transcripts, or the launches of two stacks, part.
func (f measureFlags) runDiff(cmd *cobra.Command, names []string, shapes []measure.Shape) error {
	var ts [2]transcript.Transcript
	for i, name := range names {
		var err error
		if ts[i], err = f.account(name, shapes); err != nil {
			return cli.Usage(fmt.Errorf("%s: %w", name, err), "give a transcript in JSON, or the folder of a boot stack")
		}
	}
	d := transcript.Diff(ts[0], ts[1])
	if err := writeDiff(cmd.OutOrStdout(), f.output, d, ts); err != nil {
		return err
	}
	if d != nil {
		return &cli.Silent{Code: cli.ExitMismatch}
	}
	return nil
}

// account reads a transcript, or makes that of a stack.
func (f measureFlags) account(name string, shapes []measure.Shape) (transcript.Transcript, error) {
	info, err := os.Stat(name)
	if err != nil {
		return transcript.Transcript{}, err
	}
	if info.IsDir() {
		in, err := readStack(name, shapes[0].VMM)
		if err != nil {
			return transcript.Transcript{}, err
		}
		return in.transcript(shapes)
	}
	data, err := cli.ReadFile(name, transcript.MaxSize)
	if err != nil {
		return transcript.Transcript{}, err
	}
	return transcript.Parse(data)
}

func writeDiff(w io.Writer, output string, d *transcript.Difference, ts [2]transcript.Transcript) error {
	switch output {
	case "json":
		return json.NewEncoder(w).Encode(struct {
			MediaType string                 `json:"mediaType"`
			Same      bool                   `json:"same"`
			First     *transcript.Difference `json:"first,omitempty"`
		}{diffMediaType, d == nil, d})
	case "digest":
		return errors.New("--output digest: --diff has none")
	}
	if d == nil {
		_, err := fmt.Fprintf(w, "the same: %d steps, %v\n", len(ts[0].Steps), ts[0].Measurement)
		return err
	}
	fmt.Fprintf(w, "step %d is the first that differs: %s\n", d.Step, d.Meaning)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, side := range []struct {
		name string
		step *measure.Step
	}{{"A", d.A}, {"B", d.B}} {
		if side.step == nil {
			fmt.Fprintf(tw, "  %s\tends before\n", side.name)
			continue
		}
		s := *side.step
		fmt.Fprintf(tw, "  %s\t%s\t%v\t%#x-%#x\t%d\t%s\n", side.name, s.What, s.Type, s.GPA, s.End()-1, s.Pages, contents(s))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, l := range d.Later {
		if _, err := fmt.Fprintf(w, "also: %s\n", l); err != nil {
			return err
		}
	}
	return nil
}

package kattest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/verifier"
)

// subject is something to judge: a file, or what was read from elsewhere.
type subject struct {
	name string
	data []byte // nil for a file, which is read when it is judged
}

// read returns the bytes, or more than are judged of a file that is too large.
func (s subject) read() ([]byte, error) {
	if s.data != nil {
		return s.data, nil
	}
	f, err := os.Open(s.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, verifier.MaxInput+1))
}

// isReport says that the subject is a bare report.
func (s subject) isReport() bool {
	data, err := s.read()
	if err != nil {
		return false // judging says so
	}
	in, err := verifier.ParseInput(data)
	return err == nil && in.Evidence == nil && in.TPM == nil
}

// maxSubjects bounds what one command line judges.
const maxSubjects = 10_000

// suffixes are those of the files of a folder that are judged.
var suffixes = []string{".bin", ".json"}

// subjects returns what the arguments name, in their order, a folder's files by
// name. many says that more than one file was asked for.
func subjects(cmd *cobra.Command, args []string) (all []subject, many bool, err error) {
	for _, arg := range args {
		if arg == "-" {
			data, err := cli.ReadAll("standard input", cmd.InOrStdin(), verifier.MaxInput)
			if err != nil {
				return nil, false, cli.Usage(err, "")
			}
			all = append(all, subject{"-", append([]byte{}, data...)})
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			return nil, false, cli.Usage(err, "")
		}
		if !info.IsDir() {
			all = append(all, subject{name: arg})
			continue
		}
		many = true
		found, err := folder(arg)
		if err != nil {
			return nil, false, cli.Usage(err, "")
		}
		all = append(all, found...)
	}
	if len(all) > maxSubjects {
		return nil, false, cli.Usage(fmt.Errorf("%d files, more than %d", len(all), maxSubjects), "judge them in several runs")
	}
	return all, many || len(args) > 1, nil
}

// folder returns the reports of a folder and of those in it. Symbolic links are
// not followed.
func folder(dir string) ([]subject, error) {
	var found []subject
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && slices.Contains(suffixes, filepath.Ext(name)) {
			found = append(found, subject{name: name})
		}
		return err
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s: no file in it ends in .bin or .json", dir)
	}
	return found, err
}

// judgeAll judges on all processors. Results stand in the order of the subjects. A
// file that cannot be read keeps no other from being judged.
func judgeAll(ctx context.Context, v *verifier.Verifier, all []subject, p verifier.Policy) ([]verifier.Result, error) {
	results := make([]verifier.Result, len(all))
	one := func(ctx context.Context, i int) error {
		data, err := all[i].read()
		if err != nil {
			results[i] = unreadable(all[i].name, err, p)
			return nil
		}
		results[i], err = v.Judge(ctx, all[i].name, data, p)
		if _, refused := errors.AsType[*verifier.Refusal](err); err != nil && !refused {
			return err
		}
		return nil
	}
	if len(all) == 1 { // which needs no second thread
		return results, one(ctx, 0)
	}
	// Each collection walks what the program holds anyway, which is far more than
	// what a report leaves behind.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range all {
		group.Go(func() error { return one(ctx, i) })
	}
	return results, group.Wait()
}

func unreadable(name string, err error, p verifier.Policy) verifier.Result {
	return verifier.Result{
		MediaType: verifier.MediaType, Subject: name, Form: verifier.FormReport, Verdict: verifier.Malformed,
		AuthenticityOnly: p.AuthenticityOnly, Time: p.Time.UTC().Truncate(time.Second),
		Checks: []verifier.Check{{Code: verifier.CodeInput, Outcome: verifier.Fail, Reason: err.Error()}},
	}
}

package logs

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/measure/release/tlog"
)

// monitorFlags are those of monitor.
type monitorFlags struct {
	log, state string
	bundles    []string
	keys       []string
	every      time.Duration
}

func newMonitor() *cobra.Command {
	var f monitorFlags
	cmd := &cobra.Command{
		Use:   "monitor ADDRESS|DIR",
		Short: "Watch that a log grows and never changes, and what it gets",
		Long: `Check that the log at ADDRESS (http or https), or in DIR, has all that it had, and print
its new entries: index, the SHA-256 of the key that signed, the digest of what was
signed, and the bundle, where one of --bundle is it.

--state remembers the last checkpoint; it is made if it is not there, and changed only
where all is well. Each --bundle's own checkpoint must be the beginning of the log as
well: a bundle that somebody else was shown, from a log that was forked for them, is
found so. Give --key, and entries that it signed must be among the bundles: someone
else may have the key. --every watches until something is wrong.

Exit status: 0 all is well, 2 usage, 3 a bundle's proof does not hold, 4 the log
cannot be asked, 5 it forgot, it forked, it does not show what it vouches for, or a
key signed what is not known. Of a fork, FILE.evidence has both checkpoints: they
convict the log, whoever is shown them.`,
		Example: `  kattest log monitor https://log.example.org/ --log trusted_root.json --state seen
  kattest log monitor https://log.example.org/ --log trusted_root.json --state seen \
      --bundle release.json --bundle sbom.json --key release.pub`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.log == "" || f.state == "":
				return cli.Usage(errors.New("--log and --state are both needed"), "see 'kattest log monitor --help'")
			case len(f.bundles) > 0 && len(f.keys) == 0:
				return cli.Usage(errors.New("--bundle needs the --key that signed it"), "")
			case f.every < 0:
				return cli.Usage(fmt.Errorf("--every: %v is less than nothing", f.every), "")
			}
			return f.watch(cmd, args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.log, "log", "", "the log's trusted root, JSON, as 'log init' writes it")
	flags.StringVar(&f.state, "state", "", "file with the checkpoint that was seen last")
	flags.StringArrayVar(&f.bundles, "bundle", nil, "bundle with a proof of the log; may be given more than once")
	flags.StringArrayVar(&f.keys, "key", nil, "public key whose entries must be those of the bundles, PEM; may be given more than once")
	flags.DurationVar(&f.every, "every", 0, "look again after that time, for good")
	return cmd
}

// watch looks once, or for good. An outage does not end a watch that goes on.
func (f *monitorFlags) watch(cmd *cobra.Command, from string) error {
	m, err := f.open(from)
	if err != nil {
		return err
	}
	defer m.close()
	for {
		err := m.look(cmd.Context(), cmd.OutOrStdout())
		failed, _ := errors.AsType[*cli.Error](err)
		outage := failed != nil && failed.Code == cli.ExitUnavailable
		if f.every == 0 || err != nil && !outage {
			return err
		}
		if outage {
			fmt.Fprintf(cmd.ErrOrStderr(), "kattest-log: warning: %v\n", err)
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(f.every):
		}
	}
}

// monitor is what is watched, and by what.
type monitor struct {
	source  tlog.Source
	close   func()
	log     tlog.Log
	state   string
	bundles map[tlog.Hash]string // files, by leaf
	known   []tlog.Known
	keys    map[string]string // files, by DER SubjectPublicKeyInfo
}

func (f *monitorFlags) open(from string) (*monitor, error) {
	m := &monitor{state: f.state, close: func() {}, bundles: map[tlog.Hash]string{}, keys: map[string]string{}}
	text, err := cli.ReadFile(f.log, tlog.MaxTrustedRoot)
	if err != nil {
		return nil, cli.Usage(err, "")
	}
	logs, err := tlog.ParseTrustedRoot(text)
	if err == nil && len(logs) != 1 {
		err = fmt.Errorf("trusted root: %d logs, want 1", len(logs))
	}
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--log %s: %w", f.log, err), "")
	}
	m.log = logs[0]
	keys, err := readKeys(f.keys)
	if err != nil {
		return nil, err
	}
	for i, key := range keys {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--key %s: %w", f.keys[i], err), "")
		}
		m.keys[string(der)] = f.keys[i]
	}
	for _, file := range f.bundles {
		if err := m.knows(file, keys); err != nil {
			return nil, err
		}
	}
	return m, m.reach(from)
}

// knows reads a bundle with its proof.
func (m *monitor) knows(file string, keys []crypto.PublicKey) error {
	b, err := readBundle(file, keys)
	if err != nil {
		return err
	}
	in, err := tlog.Check(b.data, b.key, []tlog.Log{m.log})
	if err != nil {
		return &cli.Error{Code: cli.ExitSignature, Err: fmt.Errorf("%s: %w", file, err)}
	}
	m.bundles[in.Leaf] = file
	m.known = append(m.known, tlog.Known{Name: file, Checkpoint: in.Checkpoint})
	return nil
}

// reach opens an address or a folder.
func (m *monitor) reach(from string) error {
	if strings.Contains(from, "://") {
		source, err := tlog.NewHTTP(from)
		if err != nil {
			return cli.Usage(err, "")
		}
		m.source = source
		return nil
	}
	root, err := os.OpenRoot(from)
	if err != nil {
		return cli.Usage(err, "")
	}
	m.source, m.close = tlog.Dir{Root: root}, func() { root.Close() }
	return nil
}

// look checks the log once.
func (m *monitor) look(ctx context.Context, out io.Writer) error {
	known, from := m.known, int64(0)
	seen, err := cli.ReadFile(m.state, 1<<20)
	switch {
	case err == nil:
		c, err := m.log.ParseCheckpoint(seen)
		if err != nil {
			return cli.Usage(fmt.Errorf("--state %s: %w", m.state, err), "it is another log's, or damaged")
		}
		known, from = append(known, tlog.Known{Name: m.state, Checkpoint: c}), c.Size
	case !errors.Is(err, fs.ErrNotExist):
		return cli.Usage(err, "")
	}
	var unknown []error
	checkpoint, err := tlog.Monitor(ctx, m.source, m.log, known, from, func(e tlog.Entry) error {
		line, bad := m.entry(e)
		unknown = append(unknown, bad)
		_, err := fmt.Fprintln(out, line)
		return err
	})
	if err != nil {
		return m.failed(ctx, err)
	}
	if err := errors.Join(unknown...); err != nil {
		return &cli.Error{Code: cli.ExitMismatch, Err: err, Hint: "give the bundle, if it is yours; if not, someone else has the key"}
	}
	if err := wholefile.Write(m.state, checkpoint.Note, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: %d entries, root %v\n", m.log.Origin, checkpoint.Size, checkpoint.Root)
	return err
}

// entry returns the line of an entry, and an error where a key signed what is not
// known.
func (m *monitor) entry(e tlog.Entry) (string, error) {
	if e.Key == nil {
		return fmt.Sprintf("%d of another kind, leaf %v", e.Index, e.Hash), nil
	}
	line := fmt.Sprintf("%d key SHA-256 %x, signed %.20q %x", e.Index, sha256.Sum256(e.Key), e.Algorithm, e.Digest)
	if file, ok := m.bundles[e.Hash]; ok {
		return line + ": " + file, nil
	}
	if file, ok := m.keys[string(e.Key)]; ok {
		return line, fmt.Errorf("entry %d is signed by key %s and is none of the bundles", e.Index, file)
	}
	return line, nil
}

// failed gives a failure its exit code. What convicts the log is kept.
func (m *monitor) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, tlog.ErrCheckpoint) {
		return &cli.Error{Code: cli.ExitSignature, Err: err, Hint: "is it the log of --log?"}
	}
	broken, ok := errors.AsType[*tlog.Misbehaviour](err)
	if !ok {
		return &cli.Error{Code: cli.ExitUnavailable, Err: err, Hint: "it may be tried again"}
	}
	e := &cli.Error{Code: cli.ExitMismatch, Err: broken}
	if broken.Shown != nil {
		evidence := m.state + ".evidence"
		if err := wholefile.Write(evidence, append(append(broken.Known, '\n'), broken.Shown...), 0o644); err != nil {
			return errors.Join(e, err)
		}
		e.Hint = "both checkpoints are in " + evidence + ": show them to whoever relies on the log"
	}
	return e
}

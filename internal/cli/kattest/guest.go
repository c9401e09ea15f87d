package kattest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/internal/channel"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/verifier"
)

// guestFlags are those of commands that ask a guest, and judge its answer.
type guestFlags struct {
	judge   judgeFlags
	save    string
	timeout time.Duration
}

func (f *guestFlags) register(cmd *cobra.Command) {
	f.judge.register(cmd.Flags())
	cmd.Flags().StringVar(&f.save, "save", "", "keep the evidence in this file")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 30*time.Second, "how long to wait for the answer")
}

// check refuses a command line that contradicts itself.
func (f *guestFlags) check(cmd *cobra.Command, addr string) error {
	if err := f.judge.check(cmd.Flags(), true); err != nil {
		return err
	}
	if f.judge.reportData != "" || f.judge.withoutNonce {
		return cli.Usage(fmt.Errorf("%s makes a nonce of its own: --report-data and --without-nonce have no place", cmd.Name()), "'kattest verify' judges what was kept with --save")
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return cli.Usage(fmt.Errorf("ADDR: %w", err), "want HOST:PORT, as cradle-snp run prints it")
	}
	return nil
}

// checkTrusting is check for commands that then trust the guest with something:
// whatever the report says must be judged.
func (f *guestFlags) checkTrusting(cmd *cobra.Command, addr string) error {
	if f.judge.authenticityOnly {
		return cli.Usage(fmt.Errorf("--authenticity-only says nothing of who is at the other end: %s cannot do with it", cmd.Name()), "")
	}
	if f.judge.nonce != "" {
		return cli.Usage(fmt.Errorf("%s asks with nonces of its own: --nonce has no place", cmd.Name()), "")
	}
	return f.check(cmd, addr)
}

// attested is a guest that was judged, over the connection on which it answered.
type attested struct {
	conn     *channel.Conn
	evidence evidence.Evidence
	key      []byte // DER SubjectPublicKeyInfo, at which the connection ends
}

// attest connects to a guest, challenges it and prints the verdict. The error is nil
// where all holds that is demanded; then the connection is the caller's to close.
func (f *guestFlags) attest(cmd *cobra.Command, addr string, p verifier.Policy) (*attested, error) {
	if p.Nonce == nil {
		p.Nonce = make([]byte, 32)
		_, _ = rand.Read(p.Nonce) // never fails, by its documentation
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	conn, data, err := challenge(ctx, addr, p.Nonce)
	if err != nil {
		return nil, &cli.Error{Code: cli.ExitUnavailable, Err: fmt.Errorf("asking %s for evidence: %w", addr, err), Hint: "is the guest's agent serving there?"}
	}
	guest, err := f.judged(cmd, addr, conn, data, p)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return guest, nil
}

// judged judges what came over the connection.
func (f *guestFlags) judged(cmd *cobra.Command, addr string, conn *channel.Conn, data []byte, p verifier.Policy) (*attested, error) {
	in, err := verifier.ParseInput(data)
	if err == nil && in.Evidence == nil {
		err = errors.New("not evidence in JSON")
	}
	if err != nil {
		return nil, &cli.Error{Code: cli.ExitUnavailable, Err: fmt.Errorf("the answer of %s: %w", addr, err), Hint: "what answers there is no agent, or lies"}
	}
	if f.save != "" {
		if err := wholefile.Write(f.save, data, 0o644); err != nil {
			return nil, err
		}
	}
	p.TLSKey = conn.Key()
	if p.TLSExporter, err = conn.Exporter(); err != nil {
		return nil, err
	}
	if err := f.judge.judge(cmd, []subject{{addr, data}}, false, p); err != nil {
		return nil, err
	}
	return &attested{conn, *in.Evidence, p.TLSKey}, nil
}

// challenge connects and asks for evidence over nonce. It trusts nothing: the
// verifier compares the connection's key and exporter with those that the report
// binds.
func challenge(ctx context.Context, addr string, nonce []byte) (*channel.Conn, []byte, error) {
	conn, err := channel.Dial(ctx, addr, nil)
	if err != nil {
		return nil, nil, err
	}
	data, err := conn.Challenge(ctx, nonce)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, data, nil
}

package kattest

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/release/registry"
	"github.com/kraudcloud/kattest/measure/release/tlog"
)

// trustFlags say whose releases are believed, and which of theirs no longer are.
type trustFlags struct {
	keys        []string
	identity    release.Identity
	trustedRoot string
	log         string

	minSerial   uint64
	revocations []string
	revoked     []string

	registry registry.Client
}

func (f *trustFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.keys, "key", nil, "public key of which one must have signed a release: PEM file, or NAME://KEY of a KMS; may be given more than once")
	flags.StringVar(&f.identity.Subject, "identity", "", "identity that may have signed a release without a key; needs --issuer and --trusted-root")
	flags.StringVar(&f.identity.SubjectPattern, "identity-pattern", "", "the same by a regular expression, which must match all of it")
	flags.StringVar(&f.identity.Issuer, "issuer", "", "OpenID Connect issuer that vouches for the identity")
	flags.StringVar(&f.identity.IssuerPattern, "issuer-pattern", "", "the same by a regular expression, which must match all of it")
	flags.StringVar(&f.trustedRoot, "trusted-root", "", "sigstore's trusted root, JSON, for --identity")
	flags.StringVar(&f.log, "log", "", "trusted root of the transparency log in which a --key's signature must stand, as 'kattest log init' writes it")
	flags.Uint64Var(&f.minSerial, "min-release-serial", 0, "least serial that a release must have")
	flags.StringArrayVar(&f.revocations, "revocation", nil, "publisher's list of revoked releases, signed as a release; may be given more than once")
	flags.StringArrayVar(&f.revoked, "revoked-release", nil, "release not to accept, by its statement's SHA-256; may be given more than once")
	registerRegistry(flags, &f.registry)
}

func registerRegistry(flags *pflag.FlagSet, client *registry.Client) {
	flags.BoolVar(&client.PlainHTTP, "plain-http", false, "ask registries without TLS")
}

// check refuses what contradicts itself; given says that there is a release.
func (f *trustFlags) check(given bool) error {
	trusted := len(f.keys) > 0 || f.identity.Given()
	switch {
	case given && !trusted:
		return errors.New("--release needs --key or --identity: a release without its publisher proves nothing")
	case !given && (trusted || f.trustedRoot != ""):
		return errors.New("--key and --identity without --release: nothing is signed by them")
	case f.log != "" && len(f.keys) == 0:
		return errors.New("--log without --key: an identity's log is in --trusted-root")
	case !given && (f.minSerial != 0 || len(f.revocations)+len(f.revoked) > 0):
		return errors.New("--min-release-serial, --revocation and --revoked-release need --release")
	case f.identity.Given() != (f.trustedRoot != ""):
		return errors.New("--identity and --trusted-root go together: nothing else says which certificates to believe")
	case f.identity.Given():
		return f.identity.Check()
	}
	return nil
}

// publisher is who signed: one of the keys, or, with byIdentity, the identity.
type publisher int

const byIdentity publisher = -1

// trust is what trustFlags name, read.
type trust struct {
	flags       *trustFlags
	keys        []crypto.PublicKey // of flags.keys
	logs        []tlog.Log         // in one of which a key's signature must stand, unless empty
	revocations map[publisher][]release.Revocation
	revoked     release.Revocation // by the user's own word
}

// load reads keys and revocations, which must hold at that time.
func (f *trustFlags) load(ctx context.Context, at time.Time) (*trust, error) {
	t := &trust{flags: f, revocations: map[publisher][]release.Revocation{}}
	for _, ref := range f.keys {
		key, err := readReleaseKey(ctx, ref)
		if err != nil {
			return nil, err
		}
		t.keys = append(t.keys, key)
	}
	if f.log != "" {
		var err error
		if t.logs, err = readLogs(f.log); err != nil {
			return nil, cli.Usage(fmt.Errorf("--log %w", err), "take the file from where you take the publisher's key")
		}
	}
	t.revoked.BelowSerial = f.minSerial
	for _, text := range f.revoked {
		digest, err := measure.ParseHash(text)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--revoked-release: %w", err), "")
		}
		t.revoked.Releases = append(t.revoked.Releases, digest)
	}
	for _, file := range f.revocations {
		if err := t.readRevocation(ctx, file, at); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *trust) readRevocation(ctx context.Context, file string, at time.Time) error {
	s, err := t.open(ctx, "revocation", file)
	if err != nil {
		return err
	}
	v, err := release.ParseRevocation(s.statement)
	if err != nil {
		return cli.Usage(fmt.Errorf("%s: %w", file, err), "")
	}
	if !at.Before(v.Until) {
		return &cli.Error{
			Code: cli.ExitUnavailable, Err: fmt.Errorf("revocation %s was good until %s", file, v.Until.Format(time.RFC3339)),
			Hint: "take the publisher's newest",
		}
	}
	t.revocations[s.publisher] = append(t.revocations[s.publisher], v)
	return nil
}

// signed is a statement whose signature holds.
type signed struct {
	file      string
	statement []byte
	publisher publisher
	by        string // the publisher, for people
}

// open reads the bundle in file, and checks it.
func (t *trust) open(ctx context.Context, what, file string) (signed, error) {
	bundle, err := cli.ReadFile(file, release.MaxBundle)
	if err != nil {
		return signed{}, cli.Usage(err, "")
	}
	return t.check(ctx, what, file, bundle)
}

// check checks that one of the keys or the identity signed the bundle: a key's
// bundle by the keys alone, a certificate's by the identity.
func (t *trust) check(ctx context.Context, what, file string, bundle []byte) (signed, error) {
	s, err := t.verify(ctx, bundle)
	if _, ok := errors.AsType[*cli.Error](err); ok {
		return signed{}, err
	}
	switch {
	case errors.Is(err, errLog):
		return signed{}, &cli.Error{
			Code: cli.ExitSignature, Err: fmt.Errorf("%s %s is signed, but not logged as --log demands: %w", what, file, err),
			Hint: "take the publisher's bundle with its proof; who shows you one that no log has hides it from the others",
		}
	case errors.Is(err, release.ErrSignature):
		return signed{}, &cli.Error{
			Code: cli.ExitSignature,
			Err:  fmt.Errorf("%s %s is not signed by %s: it was changed, or signed with another key: %w", what, file, t.accepted(), err),
			Hint: "take the publisher's key or identity from where you trust it, and the " + what + " anew",
		}
	case err != nil:
		return signed{}, cli.Usage(fmt.Errorf("%s: %w", file, err), "")
	}
	s.file = file
	return s, nil
}

func (t *trust) verify(ctx context.Context, bundle []byte) (signed, error) {
	certificate, err := release.HasCertificate(bundle)
	switch {
	case err != nil:
		return signed{}, err
	case certificate && !t.flags.identity.Given():
		return signed{}, fmt.Errorf("%w: it is signed by a certificate, for which --identity is", release.ErrSignature)
	case certificate:
		answer, err := askKeyless(ctx, bundle, t.flags.identity, t.flags.trustedRoot)
		if err != nil {
			return signed{}, err
		}
		return signed{statement: answer.Statement, publisher: byIdentity, by: printable(answer.Signer.String())}, nil
	case len(t.keys) == 0:
		return signed{}, fmt.Errorf("%w: it is signed by a key, for which --key is", release.ErrSignature)
	}
	statement, by, err := release.Verify(bundle, t.keys...)
	if err != nil {
		return signed{}, err
	}
	s := signed{statement: statement, publisher: publisher(by), by: "key " + t.flags.keys[by]}
	if t.logs == nil {
		return s, nil
	}
	in, err := tlog.Check(bundle, t.keys[by], t.logs)
	if err != nil {
		return signed{}, fmt.Errorf("%w: %w", errLog, err)
	}
	s.by += fmt.Sprintf(", entry %d of %s", in.Index, in.Log.Origin)
	return s, nil
}

// errLog says that one of the keys signed a bundle, which is not logged as it must be.
var errLog = errors.New("the transparency log")

func readLogs(file string) ([]tlog.Log, error) {
	text, err := cli.ReadFile(file, tlog.MaxTrustedRoot)
	if err != nil {
		return nil, err
	}
	logs, err := tlog.ParseTrustedRoot(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return logs, nil
}

// accepted names who may sign.
func (t *trust) accepted() string {
	names := append([]string(nil), t.flags.keys...)
	if id := t.flags.identity; id.Given() {
		names = append(names, fmt.Sprintf("%s%s (%s%s)", id.Subject, id.SubjectPattern, id.Issuer, id.IssuerPattern))
	}
	return strings.Join(names, " or ")
}

// signedRelease is a release whose signature holds.
type signedRelease struct {
	release.Release
	signed
	revoked string // why it no longer holds; "" where it does
}

// digest names the release: the SHA-256 of what was signed.
func (r signedRelease) digest() measure.Hash { return sha256.Sum256(r.statement) }

// name is the release for people, as it stands in a result.
func (r signedRelease) name() string {
	return fmt.Sprintf("release %s (%s), signed by %s", r.file, serialText(r.Serial), r.by)
}

func serialText(serial uint64) string {
	if serial == 0 {
		return "without a serial"
	}
	return fmt.Sprintf("serial %d", serial)
}

// releases opens the release in a file, or those that refer to something in a
// registry: the ones that are signed as they must be, of which there is one at
// least. What others put there is passed over. Revoked ones are returned too.
func (t *trust) releases(ctx context.Context, from string) ([]signedRelease, error) {
	if !registry.Is(from) {
		s, err := t.open(ctx, "release", from)
		if err != nil {
			return nil, err
		}
		r, err := t.release(s)
		if err != nil {
			return nil, err
		}
		return []signedRelease{r}, nil
	}
	bundles, err := t.flags.registry.Bundles(ctx, from, release.PredicateType)
	if err != nil {
		return nil, registryError(err, "have the publisher attach the release: kattest publish")
	}
	var all []signedRelease
	var refused []error
	for _, b := range bundles {
		if _, err := release.Claims(b.Data); err != nil { // no bundle at all
			refused = append(refused, fmt.Errorf("%s: %w", b.Name, err))
			continue
		}
		s, err := t.check(ctx, "release", b.Name, b.Data)
		if failed, ok := errors.AsType[*cli.Error](err); ok && failed.Code == cli.ExitSignature {
			refused = append(refused, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		r, err := t.release(s)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, &cli.Error{
			Code: cli.ExitSignature, Err: errors.Join(refused...),
			Hint: "take the publisher's key or identity from where you trust it",
		}
	}
	return all, nil
}

// release reads the release that was signed.
func (t *trust) release(s signed) (signedRelease, error) {
	r := signedRelease{signed: s}
	var err error
	if r.Release, err = release.ParseStatement(s.statement); err != nil {
		return signedRelease{}, cli.Usage(fmt.Errorf("%s: %w", s.file, err), "")
	}
	lists := t.revocations[s.publisher]
	if len(t.flags.revocations) > 0 && len(lists) == 0 {
		return signedRelease{}, &cli.Error{
			Code: cli.ExitUnavailable, Err: fmt.Errorf("%s: none of the revocations is its publisher's", r.name()),
			Hint: "give one --revocation of each publisher, or none at all",
		}
	}
	for _, v := range append([]release.Revocation{t.revoked}, lists...) {
		if r.revoked = v.Revokes(r.Release, s.statement); r.revoked != "" {
			break
		}
	}
	return r, nil
}

// openOne reads one release that is not revoked: of several that a registry has,
// the one with the largest serial.
func (f *trustFlags) openOne(ctx context.Context, from string) (signedRelease, error) {
	t, err := f.load(ctx, time.Now())
	if err != nil {
		return signedRelease{}, err
	}
	all, err := t.releases(ctx, from)
	if err != nil {
		return signedRelease{}, err
	}
	current := slices.DeleteFunc(slices.Clone(all), func(r signedRelease) bool { return r.revoked != "" })
	if len(current) == 0 {
		return signedRelease{}, revokedError(all[0])
	}
	newest := slices.MaxFunc(current, func(a, b signedRelease) int { return cmp.Compare(a.Serial, b.Serial) })
	for _, r := range current {
		if r.Serial == newest.Serial && r.digest() != newest.digest() {
			return signedRelease{}, cli.Usage(
				fmt.Errorf("%s: two releases have the same serial: %s and %s", from, newest.name(), r.name()), "name one of them by a file")
		}
	}
	return newest, nil
}

func revokedError(r signedRelease) error {
	return &cli.Error{Code: cli.ExitMismatch, Err: fmt.Errorf("%s, is revoked: %s", r.name(), r.revoked), Hint: "take the publisher's newest release"}
}

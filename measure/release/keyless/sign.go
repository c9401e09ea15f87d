package keyless

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kraudcloud/kattest/measure/release"
)

// Why nothing was signed, other than by release.ErrSignature: what the services
// gave does not hold.
var (
	// ErrUnavailable says that a service could not be reached, failed, or answered
	// what is no answer. It may be tried again.
	ErrUnavailable = errors.New("unavailable")
	// ErrToken says that the identity token is no token, has expired, or is refused.
	ErrToken = errors.New("identity token")
)

// patience bounds how long all services together may take.
const patience = 2 * time.Minute

// Sign has an identity sign an in-toto statement, and returns a sigstore bundle
// v0.3, JSON, with the certificate, the time stamps and the log entries that the
// configuration asks for. The key is made for this signature, P-256, and forgotten.
//
// With trusted, which may be nil, the bundle is verified as Verify does, but for
// whom it names. Without, only the certificate's key is checked: what the other
// services gave is checked by whoever verifies.
func Sign(ctx context.Context, statement []byte, token Token, services Services, trusted root.TrustedMaterial) ([]byte, error) {
	out, err := signStatement(ctx, statement, token, services, trusted)
	if err != nil {
		return nil, fmt.Errorf("signing without a key: %w", err)
	}
	return out, nil
}

func signStatement(ctx context.Context, statement []byte, token Token, services Services, trusted root.TrustedMaterial) ([]byte, error) {
	if err := token.check(time.Now()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		return nil, err
	}
	clients, err := services.clients(ctx)
	if err != nil {
		return nil, err
	}
	clients.Context = ctx
	clients.CertificateProviderOptions = &sign.CertificateProviderOptions{IDToken: string(token)}
	b, err := sign.Bundle(&sign.DSSEData{Data: statement, PayloadType: release.PayloadType}, key, clients)
	switch {
	case errors.Is(err, ErrToken), errors.Is(err, ErrUnavailable), errors.Is(err, release.ErrSignature):
		return nil, err
	case err != nil: // time stamping authorities alone have no wrapper of ours
		return nil, fmt.Errorf("%w: time stamping authority: %w", ErrUnavailable, err)
	}
	if err := checkSigned(b, trusted); err != nil {
		return nil, err
	}
	out, err := protojson.Marshal(b)
	if err != nil {
		return nil, err
	}
	if len(out) >= release.MaxBundle {
		return nil, fmt.Errorf("%w: bundle of %d bytes, more than %d", ErrUnavailable, len(out), release.MaxBundle)
	}
	return append(out, '\n'), nil
}

// checkSigned is Verify for whoever has just signed, and need not be named. Without
// a trusted root it checks form.
func checkSigned(b *protobundle.Bundle, trusted root.TrustedMaterial) error {
	read, err := bundle.NewBundle(b)
	if err != nil {
		return fmt.Errorf("%w: what the services gave makes no bundle: %w", ErrUnavailable, err)
	}
	if trusted == nil {
		return nil
	}
	verifier, err := newVerifier(trusted)
	if err != nil {
		return err
	}
	if _, err := verifier.Verify(read, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithoutIdentitiesUnsafe())); err != nil {
		return fmt.Errorf("%w: what the services gave, by the trusted root: %w", release.ErrSignature, err)
	}
	return nil
}

// certifier is the certificate authority, which is to certify our key.
type certifier struct {
	client    *sign.Fulcio
	transport *transport
}

// GetCertificate implements sign.CertificateProvider.
func (a certifier) GetCertificate(ctx context.Context, key sign.Keypair, options *sign.CertificateProviderOptions) ([]byte, error) {
	der, err := a.client.GetCertificate(ctx, key, options)
	switch {
	case err != nil && a.transport.refused():
		return nil, fmt.Errorf("%w: refused by the certificate authority: %w", ErrToken, err)
	case err != nil:
		return nil, fmt.Errorf("%w: certificate authority: %w", ErrUnavailable, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate authority: its certificate: %w", ErrUnavailable, err)
	}
	if ours, ok := key.GetPublicKey().(interface{ Equal(crypto.PublicKey) bool }); !ok || !ours.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("%w: the certificate authority certified another key than ours", release.ErrSignature)
	}
	return der, nil
}

// transparencyLog is one that says of its errors what they are.
type transparencyLog struct{ client sign.Transparency }

// GetTransparencyLogEntry implements sign.Transparency.
func (l transparencyLog) GetTransparencyLogEntry(ctx context.Context, certificate []byte, b *protobundle.Bundle) error {
	if err := l.client.GetTransparencyLogEntry(ctx, certificate, b); err != nil {
		return fmt.Errorf("%w: transparency log: %w", ErrUnavailable, err)
	}
	return nil
}

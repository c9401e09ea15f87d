package verifier

import (
	"context"
	"errors"
)

// Source is where collateral comes from that came neither with the report nor
// from the caller. Its answers are not trusted: certificates and lists are
// checked under the roots that are compiled in.
//
// An error is ErrNotFound where asking again would not help; any other may be
// temporary. A Source is used by several goroutines at once.
type Source interface {
	// VCEK returns the certificate, in DER, of the VCEK of the chip with that
	// HWID (64 bytes, 8 on Turin) at that TCB.
	VCEK(ctx context.Context, p Product, hwid []byte, tcb TCB) ([]byte, error)
	// Chain returns ASK (for a VLEK the ASVK) and ARK of a product, in PEM.
	Chain(ctx context.Context, p Product, key SigningKey) ([]byte, error)
	// CRL returns the revocation list of a product's ARK, in DER.
	CRL(ctx context.Context, p Product, key SigningKey) ([]byte, error)
}

// ErrNotFound says that a Source does not have what it was asked for, and will not.
var ErrNotFound = errors.New("not found")

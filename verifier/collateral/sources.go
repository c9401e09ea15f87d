package collateral

import (
	"context"
	"errors"

	"github.com/kraudcloud/kattest/verifier"
)

// Sources asks several in their order, and takes the first answer.
type Sources []verifier.Source

// VCEK asks for a VCEK's certificate.
func (s Sources) VCEK(ctx context.Context, p verifier.Product, hwid []byte, tcb verifier.TCB) ([]byte, error) {
	return s.first(ctx, func(one verifier.Source) ([]byte, error) { return one.VCEK(ctx, p, hwid, tcb) })
}

// Chain asks for ASK, or ASVK, and ARK.
func (s Sources) Chain(ctx context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	return s.first(ctx, func(one verifier.Source) ([]byte, error) { return one.Chain(ctx, p, key) })
}

// CRL asks for the ARK's revocation list.
func (s Sources) CRL(ctx context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	return s.first(ctx, func(one verifier.Source) ([]byte, error) { return one.CRL(ctx, p, key) })
}

// first returns the first answer. An error is verifier.ErrNotFound only if no
// Source may yet have it: one that may is told in place of those that do not.
func (s Sources) first(ctx context.Context, ask func(verifier.Source) ([]byte, error)) ([]byte, error) {
	var missing, broken []error
	for _, one := range s {
		data, err := ask(one)
		switch {
		case err == nil:
			return data, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, verifier.ErrNotFound):
			missing = append(missing, err)
		default:
			broken = append(broken, err)
		}
	}
	if len(broken) > 0 {
		return nil, errors.Join(broken...)
	}
	if len(missing) == 0 {
		return nil, verifier.ErrNotFound
	}
	return nil, errors.Join(missing...)
}

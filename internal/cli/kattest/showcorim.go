package kattest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/corim"
)

// showCoRIMMediaType names this version of show's JSON for a CoRIM.
const showCoRIMMediaType = "application/vnd.kattest.corim.v1+json"

// showCoRIM shows the reference values of a CoRIM, which key must have signed
// unless it is "".
func showCoRIM(ctx context.Context, name string, data []byte, key string) (shown, string, error) {
	m, signature, err := corim.Open(data)
	if err != nil {
		return shown{}, "", cli.Usage(fmt.Errorf("%s: %w", name, err), "")
	}
	note := "not judged: anyone can write a CoRIM; name with --key whose it must be"
	if key != "" {
		if err := verifyCoRIM(ctx, data, key); err != nil {
			return shown{}, "", err
		}
		note = "signed by key " + key
	}
	signed := "no"
	if signature != nil {
		signed = fmt.Sprintf("%s, by its own word by the key with SHA-256 %s", signature.Algorithm, hex.EncodeToString(signature.KeyID[:]))
	}
	fields := []field{
		{"profile", corim.Profile},
		{"id", m.ID},
		{"version", fmt.Sprint(m.Version)},
		{"signed", signed},
	}
	for i, r := range m.References {
		fields = append(fields, field{fmt.Sprintf("reference %d", i), r.String()})
	}
	return shown{showCoRIMMediaType, fields}, note, nil
}

func verifyCoRIM(ctx context.Context, data []byte, ref string) error {
	key, err := readReleaseKey(ctx, ref)
	if err != nil {
		return err
	}
	_, err = corim.Verify(data, key)
	if errors.Is(err, corim.ErrSignature) {
		return &cli.Error{Code: cli.ExitSignature, Err: err, Hint: "take the public key of who published the CoRIM"}
	}
	return err
}

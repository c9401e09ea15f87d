package simpsp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

func idKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestLaunchID(t *testing.T) {
	p := load(t)
	digest := measure.Digest{1, 2, 3}
	block := idblock.Block{Measurement: digest, FamilyID: [16]byte{4}, ImageID: [16]byte{5}, GuestSVN: 0x01020304, Policy: 0x30000}
	id, author := idKey(t), idKey(t)
	for _, tt := range []struct {
		name   string
		author crypto.Signer
	}{{"with an author", author}, {"without", nil}} {
		t.Run(tt.name, func(t *testing.T) {
			auth, err := idblock.Sign(block, id, tt.author)
			if err != nil {
				t.Fatal(err)
			}
			g, err := p.LaunchID(digest, [32]byte{6}, 0x30000, idblock.Signed{Block: block, Auth: auth})
			if err != nil {
				t.Fatal(err)
			}
			raw := g.Report([64]byte{7}, 0)
			if err := verify.SnpReportSignature(raw[:], p.vcek); err != nil {
				t.Error(err)
			}
			got, err := abi.ReportToProto(raw[:])
			if err != nil {
				t.Fatal(err)
			}
			type fields struct {
				SVN, Signer                   uint32
				Family, Image, IDKey, Author  []byte
				Measurement, HostData, Report []byte
			}
			want := fields{
				0x01020304, 0, block.FamilyID[:], block.ImageID[:], keyDigest(auth.IDKey), make([]byte, 48),
				digest[:], append([]byte{6}, make([]byte, 31)...), append([]byte{7}, make([]byte, 63)...),
			}
			if tt.author != nil {
				want.Signer, want.Author = 1, keyDigest(auth.AuthorKey)
			}
			have := fields{
				got.GuestSvn, got.SignerInfo, got.FamilyId, got.ImageId, got.IdKeyDigest, got.AuthorKeyDigest,
				got.Measurement, got.HostData, got.ReportData,
			}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func keyDigest(k idblock.PublicKey) []byte {
	d := sha512.Sum384(k[:])
	return d[:]
}

func TestLaunchIDRefuses(t *testing.T) {
	p := load(t)
	digest := measure.Digest{1, 2, 3}
	block := idblock.Block{Measurement: digest, Policy: 0x30000}
	auth, err := idblock.Sign(block, idKey(t), idKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		digest measure.Digest
		policy uint64
		change func(*idblock.Signed)
		status Status
		text   string
	}{
		{"another digest", measure.Digest{9}, 0x30000, nil, BadMeasurement, "Bad measurement"},
		{"another policy", digest, 0xb0000, nil, PolicyFailure, "Policy is not allowed"},
		{"the block is changed", measure.Digest{9}, 0x30000, func(s *idblock.Signed) { s.Block.Measurement = measure.Digest{9} }, BadSignature, "Bad signature"},
		{"a flipped bit over the block", digest, 0x30000, func(s *idblock.Signed) { s.Auth.BlockSignature[0] ^= 1 }, BadSignature, "Bad signature"},
		{"a flipped bit over the key", digest, 0x30000, func(s *idblock.Signed) { s.Auth.KeySignature[0] ^= 1 }, BadSignature, "Bad signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := idblock.Signed{Block: block, Auth: auth}
			if tt.change != nil {
				tt.change(&id)
			}
			g, err := p.LaunchID(tt.digest, [32]byte{}, tt.policy, id)
			refused, ok := errors.AsType[*LaunchError](err)
			if g != nil || !ok || refused.Status != tt.status || refused.Status.String() != tt.text {
				t.Errorf("got %v, %v; want status %d", g, err, tt.status)
			}
		})
	}
}

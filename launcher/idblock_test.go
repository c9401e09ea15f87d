package launcher

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// signedBlock is an ID block for that launch, signed by keys of the test's.
func signedBlock(t *testing.T, digest measure.Digest, policy uint64, withAuthor bool) *idblock.Signed {
	t.Helper()
	newKey := func() crypto.Signer {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	var author crypto.Signer
	if withAuthor {
		author = newKey()
	}
	b := idblock.Block{Measurement: digest, FamilyID: [16]byte{1}, ImageID: [16]byte{2}, GuestSVN: 3, Policy: policy}
	auth, err := idblock.Sign(b, newKey(), author)
	if err != nil {
		t.Fatal(err)
	}
	return &idblock.Signed{Block: b, Auth: auth}
}

// testDryRunIDBlock: a real QEMU takes the ID block in its object, as far as it
// goes without SNP.
func testDryRunIDBlock(t *testing.T, q qemu) {
	object := func(m Machine) option {
		options, err := m.options()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range options {
			if strings.HasPrefix(o.value, "sev-snp-guest,") {
				return o
			}
		}
		t.Fatal("no object")
		return option{}
	}
	none := []option{{"-machine", "none"}, {"-nodefaults", ""}, {"-display", "none"}, {"-S", ""}}
	for name, withAuthor := range map[string]bool{"with an author": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			m := sample(SNP)
			m.IDBlock = signedBlock(t, measure.Digest{1}, Policy, withAuthor)
			o := object(m)
			if want := object(sample(SNP)).value + "," + m.IDBlock.QEMU(); o.value != want {
				t.Errorf("object %s, want %s", o.value, want)
			}
			q.dryRun(t, append(none, o), "")
			cut := o
			cut.value = strings.Replace(cut.value, "id-block=", "id-block=AAAA", 1)
			q.dryRun(t, append(none, cut), "parameter length of 99 not equal to 96")
			long := o
			long.value = strings.Replace(long.value, "id-auth=", "id-auth=AAAA", 1)
			q.dryRun(t, append(none, long), "parameter length:ID_AUTH 4099 exceeds max of 4096")
		})
	}
}

func TestBootIDBlock(t *testing.T) {
	v := guest(t, "psp")
	o := simulated(t)
	good := signedBlock(t, digest(t, v), Policy, true)
	v.Config.IDBlock = good
	var stdout bytes.Buffer
	o.Stdout = &stdout
	if _, err := Run(t.Context(), v, o); err != nil {
		t.Fatal(err)
	}
	report := stdout.Bytes()
	idKey, authorKey := good.Auth.IDKey.Digest(), good.Auth.AuthorKey.Digest()
	for _, field := range []struct {
		name   string
		offset int
		want   []byte
	}{
		{"GUEST_SVN", 0x004, binary.LittleEndian.AppendUint32(nil, 3)},
		{"FAMILY_ID", 0x010, good.Block.FamilyID[:]},
		{"IMAGE_ID", 0x020, good.Block.ImageID[:]},
		{"AUTHOR_KEY_EN", 0x048, []byte{1, 0, 0, 0}},
		{"MEASUREMENT", 0x090, good.Block.Measurement[:]},
		{"ID_KEY_DIGEST", 0x0e0, idKey[:]},
		{"AUTHOR_KEY_DIGEST", 0x110, authorKey[:]},
	} {
		if got := report[field.offset:][:len(field.want)]; !bytes.Equal(got, field.want) {
			t.Errorf("%s: %x, want %x", field.name, got, field.want)
		}
	}
}

// Each twin of TestBootIDBlock is refused twice: by the launcher, and by the
// processor where a launcher hands the block over unchecked.
func TestIDBlockRefused(t *testing.T) {
	v := guest(t, "psp")
	o := simulated(t)
	right := digest(t, v)
	wrong := right
	wrong[47] ^= 1
	for _, tt := range []struct {
		name   string
		block  *idblock.Signed
		err    error
		status simpsp.Status
	}{
		{"launch digest", signedBlock(t, wrong, Policy, true), idblock.ErrMeasurement, simpsp.BadMeasurement},
		{"policy", signedBlock(t, right, Policy|policyDebug, false), idblock.ErrPolicy, simpsp.PolicyFailure},
		{"signature of the block", flipped(t, right, func(a *idblock.Auth) { a.BlockSignature[5] ^= 1 }), idblock.ErrSignature, simpsp.BadSignature},
		{"signature of the key", flipped(t, right, func(a *idblock.Auth) { a.KeySignature[5] ^= 1 }), idblock.ErrSignature, simpsp.BadSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o.Claims.IDBlock, v.Config.IDBlock = tt.block, nil
			_, err := Run(t.Context(), v, o)
			refused, ok := errors.AsType[*simpsp.LaunchError](err)
			if !ok || refused.Status != tt.status || !errors.Is(err, tt.err) {
				t.Errorf("the processor: got %v, want status %d", err, tt.status)
			}
			o.Claims.IDBlock = nil

			v.Config.IDBlock = tt.block
			if errors.Is(tt.err, idblock.ErrSignature) { // the folder is not opened, or not made
				if err := v.Config.Check(); !errors.Is(err, tt.err) {
					t.Errorf("vm.json: got %v, want %v", err, tt.err)
				}
				return
			}
			if _, err := Run(t.Context(), v, o); !errors.Is(err, tt.err) {
				t.Errorf("the launcher: got %v, want %v", err, tt.err)
			}
			if _, _, err := NewHost().Line(v, Options{Platform: SNP}); !errors.Is(err, tt.err) {
				t.Errorf("the line: got %v, want %v", err, tt.err)
			}
		})
	}
}

func flipped(t *testing.T, digest measure.Digest, change func(*idblock.Auth)) *idblock.Signed {
	t.Helper()
	s := signedBlock(t, digest, Policy, true)
	change(&s.Auth)
	return s
}

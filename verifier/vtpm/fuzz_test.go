package vtpm_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// ekTemplate is the public area of the TCG's default EK template L-1 (TCG EK
// Credential Profile, rev 2.5), with a modulus.
func ekTemplate() []byte {
	area, _ := hex.DecodeString("0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa00060080004300100800000000000100")
	return append(area, bytes.Repeat([]byte{0xc5}, 256)...)
}

// akTemplate is that of a restricted signing key, RSASSA with SHA-256.
func akTemplate() []byte {
	area, _ := hex.DecodeString("0001000b000500720000" + "0010" + "0014000b" + "0800" + "00000000" + "0100")
	return append(area, bytes.Repeat([]byte{0xc5}, 256)...)
}

func FuzzParseAK(f *testing.F) {
	f.Add(akTemplate())
	f.Add(ekTemplate())
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := vtpm.ParseAK(data)
		if (err == nil) != (k.Name() != nil) {
			t.Errorf("error %v with name %x", err, k.Name())
		}
		if _, err := vtpm.VerifyQuote(k, data, data); err == nil {
			t.Error("a quote that nothing signed is accepted")
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add(ekTemplate())
	services, _ := hex.DecodeString("bb9e8463923d7046a1ff58f9c94b87bb" + "6a010000" + "01000000" + "ebf176c42301a5459641b4e7dde5bfe3" + "30000000" + "3a010000")
	f.Add(append(services, ekTemplate()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		ek, err := vtpm.ParseManifest(data)
		if (err == nil) != (ek != nil) || !bytes.Contains(data, ek) {
			t.Errorf("error %v with an EK of %d bytes", err, len(ek))
		}
	})
}

func FuzzParseHCL(f *testing.F) {
	n := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xc5}, 256))
	runtime := fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":%q}],"user-data":"%0128x"}`, n, 1)
	b := make([]byte, 0x4d4)
	copy(b, "HCLA")
	for offset, v := range map[int]int{4: 2, 8: len(b) + len(runtime), 12: 2, 0x4c0: 20 + len(runtime), 0x4c4: 1, 0x4c8: 2, 0x4cc: 1, 0x4d0: len(runtime)} {
		binary.LittleEndian.PutUint32(b[offset:], uint32(v))
	}
	seed := append(append(b, runtime...), 0, 0)
	if _, err := vtpm.ParseHCL(seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := vtpm.ParseHCL(data)
		if (err == nil) != (len(h.Report) == 1184) {
			t.Errorf("error %v with a report of %d bytes", err, len(h.Report))
		}
	})
}

// The structures are read behind the signature alone; the fuzzer has no key.
func FuzzParseQuote(f *testing.F) {
	seed, _ := hex.DecodeString("ff54434780180022000b" + fmt.Sprintf("%064x", 1) + "0009" + hex.EncodeToString([]byte("challenge")) +
		"00000000003356d0" + "00000003" + "00000000" + "01" + "2020031200120003" + "00000001" + "000b" + "03ff4000" + "0020" + fmt.Sprintf("%064x", 2))
	if _, err := vtpm.ParseQuote(seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := vtpm.ParseQuote(data)
		if err != nil && (q.ExtraData != nil || q.Selected != nil) {
			t.Error("an error with a value")
		}
	})
}

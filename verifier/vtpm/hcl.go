package vtpm

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/kraudcloud/kattest/internal/strictjson"
)

// Sizes in bytes of Azure's HCL report.
const (
	hclHeaderSize  = 32
	hclReportSize  = 1184
	hclRequestSize = 20
	runtimeOffset  = hclHeaderSize + hclReportSize + hclRequestSize // 0x4d4

	// MaxHCL is the largest HCL report that is read.
	MaxHCL = 16 << 10
	// UserDataSize is the size of the guest's own data in the runtime data.
	UserDataSize = 64

	maxRuntimeValues = 1024
)

// HCLMagic is how an HCL report begins.
const HCLMagic = "HCLA"

// Values of the fields below. Source: as for ParseHCL.
const (
	hclRequestType = 2 // attestation
	hclTypeSNP     = 2
	hclHashSHA256  = 1
)

// HCL is an HCL report: what the paravisor of an Azure confidential VM keeps in
// its vTPM. Its AK signs quotes; the report binds it through the runtime data.
type HCL struct {
	Report      []byte // the SEV-SNP attestation report, 1184 bytes
	RuntimeData []byte // JSON
	// AK is HCLAkPub of the runtime data. The TPM's attributes of that key are not
	// in it: that it is restricted to what the TPM made is the paravisor's word.
	AK Key
	// UserData is what the guest gave for this report, nil where there is none.
	UserData []byte
}

// IsHCL reports whether data begins as an HCL report does. No attestation report
// does: that would be its version.
func IsHCL(data []byte) bool { return bytes.HasPrefix(data, []byte(HCLMagic)) }

// ParseHCL reads the HCL report that NV index 0x01400001 of an Azure vTPM holds,
// of at most MaxHCL bytes. Numbers are little-endian, 32 bits each:
//
//	offset  size  field
//	0x000      4  "HCLA"
//	0x004      4  version, 1 or 2
//	0x008      4  size of all that is not padding
//	0x00c      4  request type, 2
//	0x010      4  status, 0
//	0x014     12  reserved, 0
//	0x020   1184  attestation report
//	0x4c0      4  size of what follows
//	0x4c4      4  version, 1
//	0x4c8      4  report type, 2 (SNP)
//	0x4cc      4  hash of the runtime data, 1 (SHA-256)
//	0x4d0      4  size n of the runtime data
//	0x4d4      n  runtime data, JSON
//	              padding, 0
//
// Source: Microsoft, confidential-computing-cvm-guest-attestation; the layout of
// the recorded reports that docs/spec/tpm.md names.
func ParseHCL(data []byte) (HCL, error) {
	if len(data) < runtimeOffset || len(data) > MaxHCL {
		return HCL{}, fmt.Errorf("HCL report: %d bytes, want %d to %d", len(data), runtimeOffset, MaxHCL)
	}
	field := func(offset int) uint32 { return binary.LittleEndian.Uint32(data[offset:]) }
	size, runtime := field(0x008), field(0x4d0)
	var errs []error
	for _, f := range []struct {
		name      string
		offset    int
		low, high uint32
	}{
		{"signature", 0x000, 0x414c4348, 0x414c4348},
		{"version", 0x004, 1, 2},
		{"size", 0x008, runtimeOffset, uint32(len(data))},
		{"request type", 0x00c, hclRequestType, hclRequestType},
		{"status", 0x010, 0, 0},
		{"reserved", 0x014, 0, 0},
		{"reserved", 0x018, 0, 0},
		{"reserved", 0x01c, 0, 0},
		{"size of the request data", 0x4c0, size - runtimeOffset + hclRequestSize, size - runtimeOffset + hclRequestSize},
		{"version of the request data", 0x4c4, 1, 1},
		{"report type", 0x4c8, hclTypeSNP, hclTypeSNP},
		{"hash type", 0x4cc, hclHashSHA256, hclHashSHA256},
		{"size of the runtime data", 0x4d0, size - runtimeOffset, size - runtimeOffset},
	} {
		if v := field(f.offset); v < f.low || v > f.high {
			errs = append(errs, fmt.Errorf("HCL report: %s (bytes 0x%03x to 0x%03x): 0x%x, want %s", f.name, f.offset, f.offset+3, v, span(f.low, f.high)))
		}
	}
	if len(errs) > 0 {
		return HCL{}, errors.Join(errs...)
	}
	if padding := data[size:]; len(bytes.TrimLeft(padding, "\x00")) > 0 {
		return HCL{}, fmt.Errorf("HCL report: padding (from byte 0x%03x): not zero", size)
	}
	h := HCL{Report: data[hclHeaderSize:][:hclReportSize], RuntimeData: data[runtimeOffset:][:runtime]}
	if err := h.readRuntimeData(); err != nil {
		return HCL{}, fmt.Errorf("HCL report: runtime data (from byte 0x%03x): %w", runtimeOffset, err)
	}
	return h, nil
}

func span(low, high uint32) string {
	if low == high {
		return fmt.Sprintf("0x%x", low)
	}
	return fmt.Sprintf("0x%x to 0x%x", low, high)
}

// ReportData is what REPORT_DATA must hold: SHA-256 of the runtime data, and zero.
func (h HCL) ReportData() (d [64]byte) {
	sum := sha256.Sum256(h.RuntimeData)
	copy(d[:], sum[:])
	return d
}

// akID is the kid of the AK.
const akID = "HCLAkPub"

// readRuntimeData reads keys and user-data. Other members come and go with
// Azure's versions, and are not judged.
func (h *HCL) readRuntimeData() error {
	var doc map[string]json.RawMessage
	if err := strictjson.DecodeBounded(h.RuntimeData, &doc, maxRuntimeValues); err != nil {
		return err
	}
	var keys []map[string]json.RawMessage
	if err := json.Unmarshal(doc["keys"], &keys); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	for i, jwk := range keys {
		if text(jwk["kid"]) != akID {
			continue
		}
		if h.AK.public != nil {
			return fmt.Errorf("keys[%d]: a second %s", i, akID)
		}
		var err error
		if h.AK, err = readJWK(jwk); err != nil {
			return fmt.Errorf("keys[%d]: %w", i, err)
		}
	}
	if h.AK.public == nil {
		return fmt.Errorf("keys: no %s", akID)
	}
	if member, ok := doc["user-data"]; ok {
		data, err := hex.DecodeString(text(member))
		if err != nil || len(data) != UserDataSize {
			return fmt.Errorf("user-data: want %d hexadecimal digits", 2*UserDataSize)
		}
		h.UserData = data
	}
	return nil
}

// text returns a JSON string, "" of anything else.
func text(member json.RawMessage) string {
	var s string
	if json.Unmarshal(member, &s) != nil {
		return ""
	}
	return s
}

// readJWK reads an RSA key (RFC 7518, section 6.3.1).
func readJWK(jwk map[string]json.RawMessage) (Key, error) {
	if kty := text(jwk["kty"]); kty != "RSA" {
		return Key{}, fmt.Errorf("kty: %.40q, want RSA", kty)
	}
	n, err := base64.RawURLEncoding.Strict().DecodeString(text(jwk["n"]))
	if err != nil {
		return Key{}, fmt.Errorf("n: %w", err)
	}
	e, err := base64.RawURLEncoding.Strict().DecodeString(text(jwk["e"]))
	if err != nil || len(e) > 4 {
		return Key{}, errors.New("e: not an exponent in base64url")
	}
	return newRSAKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())})
}

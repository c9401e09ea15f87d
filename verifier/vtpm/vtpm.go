// Package vtpm reads what a virtual TPM 2.0 of an SEV-SNP guest answers: the
// documents by which an attestation report binds the TPM's keys (Azure's HCL
// report, the service manifest of an SVSM), quotes, and firmware event logs.
//
// Every reader takes bytes that the guest or its host may have made up, checks
// their form and what is signed, and returns the zero value with an error. The
// package does not judge the report that binds the keys, nor which values PCRs
// should have: verifier does. It cannot see what runs beneath the TPM: that is as
// trustworthy as the code that the report measures.
//
// Sources: TCG TPM 2.0 Library, part 2 (Structures), rev 1.59; TCG PC Client
// Platform Firmware Profile (PFP), rev 1.05; AMD 58019 (SVSM), rev 1.00.
package vtpm

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // a bank that is read past, and believed nothing
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// Bank is the hash algorithm of a bank of PCRs, a TPM_ALG_ID (part 2, 6.3).
type Bank uint16

// The banks that are known.
const (
	SHA1   Bank = 0x0004 // read, and never believed
	SHA256 Bank = 0x000b
	SHA384 Bank = 0x000c
	SHA512 Bank = 0x000d
)

var banks = map[Bank]struct {
	name string
	size int
	hash crypto.Hash
}{
	SHA1:   {"sha1", 20, crypto.SHA1},
	SHA256: {"sha256", sha256.Size, crypto.SHA256},
	SHA384: {"sha384", sha512.Size384, crypto.SHA384},
	SHA512: {"sha512", sha512.Size, crypto.SHA512},
}

func (b Bank) String() string {
	if known, ok := banks[b]; ok {
		return known.name
	}
	return fmt.Sprintf("TPM_ALG_ID 0x%04x", uint16(b))
}

// Size is the size of the bank's digests in bytes, 0 of an unknown bank.
func (b Bank) Size() int { return banks[b].size }

// ParseBank reads the name of a bank that can be believed: sha256, sha384 or sha512.
func ParseBank(name string) (Bank, error) {
	for bank, known := range banks {
		if known.name == name && bank != SHA1 {
			return bank, nil
		}
	}
	return 0, fmt.Errorf("%.40q is not sha256, sha384 or sha512", name)
}

// PCRCount is the number of PCRs in a bank of a PC Client TPM.
const PCRCount = 24

// PCR names a platform configuration register.
type PCR struct {
	Bank  Bank
	Index int // 0 to 23
}

func (p PCR) String() string { return fmt.Sprintf("%v:%d", p.Bank, p.Index) }

// Compare orders PCRs by bank and index.
func (p PCR) Compare(q PCR) int {
	if p.Bank != q.Bank {
		return int(p.Bank) - int(q.Bank)
	}
	return p.Index - q.Index
}

// ParsePCR reads BANK:INDEX, such as sha256:7.
func ParsePCR(text string) (PCR, error) {
	name, number, ok := strings.Cut(text, ":")
	if !ok {
		return PCR{}, fmt.Errorf("%.40q is not BANK:INDEX, such as sha256:7", text)
	}
	bank, err := ParseBank(name)
	if err != nil {
		return PCR{}, err
	}
	index, err := strconv.ParseUint(number, 10, 8)
	if err != nil || index >= PCRCount {
		return PCR{}, fmt.Errorf("%.40q is not a PCR, 0 to %d", number, PCRCount-1)
	}
	return PCR{bank, int(index)}, nil
}

// PCRs are values of registers, each of its bank's size.
type PCRs map[PCR][]byte

// errTrailing says that a structure does not end where its bytes do.
var errTrailing = errors.New("not the canonical encoding of one structure")

// unmarshal reads a TPM structure that fills data. go-tpm accepts truncated sizes
// and trailing bytes; what encodes to the same bytes again has neither.
func unmarshal[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](data []byte) (*T, error) {
	v, err := tpm2.Unmarshal[T, P](data)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(*v), data) {
		return nil, errTrailing
	}
	return v, nil
}

// ParsePCRValue reads BANK:INDEX=VALUE, the value in hexadecimal.
func ParsePCRValue(text string) (PCR, []byte, error) {
	name, digits, ok := strings.Cut(text, "=")
	if !ok {
		return PCR{}, nil, fmt.Errorf("%.40q is not BANK:INDEX=HEX", text)
	}
	pcr, err := ParsePCR(name)
	if err != nil {
		return PCR{}, nil, err
	}
	value, err := hex.DecodeString(digits)
	if err != nil || len(value) != pcr.Bank.Size() {
		return PCR{}, nil, fmt.Errorf("%v: want %d hexadecimal digits", pcr, 2*pcr.Bank.Size())
	}
	return pcr, value, nil
}

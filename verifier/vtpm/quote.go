package vtpm

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// MaxQuote is the largest quote that is read, in bytes.
const MaxQuote = 1 << 10

// Quote is what TPM2_Quote signs (TPMS_ATTEST with TPMS_QUOTE_INFO; part 2,
// sections 10.12.8 and 10.12.12).
type Quote struct {
	// ExtraData is the caller's, such as a nonce.
	ExtraData []byte
	// Selected are the PCRs that were quoted, in the order in which they were
	// hashed: that of the banks in the quote, and in each by index.
	Selected []PCR

	hash   crypto.Hash // of the signature, and so of the digest (part 3, TPM2_Quote)
	digest []byte      // of their values, one after the other
}

// VerifyQuote checks that ak signed message, and that message is a TPM's quote.
func VerifyQuote(ak Key, message, signature []byte) (Quote, error) {
	if len(message) > MaxQuote || len(signature) > MaxQuote {
		return Quote{}, fmt.Errorf("quote: %d bytes and a signature of %d, more than %d", len(message), len(signature), MaxQuote)
	}
	hash, err := ak.verify(message, signature)
	if err != nil {
		return Quote{}, fmt.Errorf("quote: %w", err)
	}
	q, err := ParseQuote(message)
	if err != nil {
		return Quote{}, fmt.Errorf("quote: %w", err)
	}
	q.hash = hash
	return q, nil
}

// ParseQuote reads a quote for people to look at: who signed it is not asked, and
// its PCRs method does not work.
func ParseQuote(message []byte) (Quote, error) {
	a, err := unmarshal[tpm2.TPMSAttest](message)
	if err != nil {
		return Quote{}, err
	}
	if a.Magic != tpm2.TPMGeneratedValue {
		return Quote{}, fmt.Errorf("magic: 0x%x, want 0x%x: no TPM made this", uint32(a.Magic), uint32(tpm2.TPMGeneratedValue))
	}
	if a.Type != tpm2.TPMSTAttestQuote {
		return Quote{}, fmt.Errorf("type: 0x%04x, want a quote (0x%04x)", uint16(a.Type), uint16(tpm2.TPMSTAttestQuote))
	}
	info, err := a.Attested.Quote()
	if err != nil {
		return Quote{}, err
	}
	q := Quote{ExtraData: a.ExtraData.Buffer, digest: info.PCRDigest.Buffer}
	if q.Selected, err = readSelection(info.PCRSelect.PCRSelections); err != nil {
		return Quote{}, err
	}
	return q, nil
}

func readSelection(selections []tpm2.TPMSPCRSelection) ([]PCR, error) {
	var all []PCR
	seen := map[Bank]bool{}
	for i, s := range selections {
		bank := Bank(s.Hash)
		if bank.Size() == 0 || seen[bank] {
			return nil, fmt.Errorf("selection %d: %v, want each of sha1, sha256, sha384 and sha512 once at most", i, bank)
		}
		seen[bank] = true
		if 8*len(s.PCRSelect) > PCRCount && len(bytes.TrimLeft(s.PCRSelect[PCRCount/8:], "\x00")) > 0 {
			return nil, fmt.Errorf("selection %d: a PCR above %d", i, PCRCount-1)
		}
		for index := range min(PCRCount, 8*len(s.PCRSelect)) {
			if s.PCRSelect[index/8]>>(index%8)&1 == 1 {
				all = append(all, PCR{bank, index})
			}
		}
	}
	return all, nil
}

// Values names values, which stand one after the other in the order of q.Selected.
// Whether they are the quoted ones is not asked.
func (q Quote) Values(values []byte) (PCRs, error) {
	size := 0
	for _, p := range q.Selected {
		size += p.Bank.Size()
	}
	if len(values) != size {
		return nil, fmt.Errorf("PCR values: %d bytes, want %d for the %d PCRs that are quoted", len(values), size, len(q.Selected))
	}
	all := PCRs{}
	for _, p := range q.Selected {
		all[p], values = values[:p.Bank.Size()], values[p.Bank.Size():]
	}
	return all, nil
}

// PCRs returns the quoted values: values holds them as Values says.
func (q Quote) PCRs(values []byte) (PCRs, error) {
	all, err := q.Values(values)
	if err != nil {
		return nil, err
	}
	if q.hash == 0 {
		return nil, errors.New("PCR values: the quote's signature was not checked")
	}
	h := q.hash.New()
	h.Write(values)
	if got := h.Sum(nil); !bytes.Equal(got, q.digest) {
		return nil, fmt.Errorf("PCR values: their digest is %x, and %x is quoted", got, q.digest)
	}
	return all, nil
}

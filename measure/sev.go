package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// SEVDigest is the launch digest of an SEV or SEV-ES guest: SHA-256. The guest's
// owner does not see it but an HMAC over it, the launch measurement.
// Source: SEV API (AMD 55766 rev 3.24), section 6.5.1.
type SEVDigest [sha256.Size]byte

// String returns d in lower-case hexadecimal.
func (d SEVDigest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns d in lower-case hexadecimal.
func (d SEVDigest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// SEV returns the launch digest of an SEV or SEV-ES guest: SHA-256 over
// the firmware's image, the SEV hash table if there are hashes, and under SEV-ES
// the VMSAs. The image needs no metadata for SEV-SNP, but a place for the table
// where there are hashes (else the error is ErrNoHashTable), and a reset vector
// for SEV-ES. Under SEV, vCPUs and CPU do not count.
// Source: QEMU 10.0.2, target/i386/sev.c; Linux 6.12, arch/x86/kvm/svm/sev.c.
func SEV(image []byte, hashes *KernelHashes, shape Shape) (SEVDigest, error) {
	digest, err := measureSEV(image, hashes, shape)
	if err != nil {
		return SEVDigest{}, fmt.Errorf("measuring: %w", err)
	}
	return digest, nil
}

func measureSEV(image []byte, hashes *KernelHashes, shape Shape) (SEVDigest, error) {
	if err := shape.Check(); err != nil {
		return SEVDigest{}, err
	}
	technology := shape.VMM.Describe().Technology
	if technology == TechnologySNP {
		return SEVDigest{}, &ShapeError{"VMM", fmt.Sprintf("%v launches an SNP guest", shape.VMM)}
	}
	// As pflash it need not be a multiple of 64 KiB.
	if n := len(image); n == 0 || n%PageSize != 0 || n > MaxFirmware {
		return SEVDigest{}, fmt.Errorf("firmware: %d bytes, want a multiple of %d up to %d", n, PageSize, MaxFirmware)
	}
	h := sha256.New()
	h.Write(image)
	if technology == TechnologySEV && hashes == nil {
		return SEVDigest(h.Sum(nil)), nil
	}
	entries, err := parseTable(image)
	if err != nil {
		return SEVDigest{}, err
	}
	if hashes != nil {
		area, err := entries.hashArea()
		if err != nil {
			return SEVDigest{}, err
		}
		if area == 0 {
			return SEVDigest{}, fmt.Errorf("%w: it has no SEV hash table in its GUID table", ErrNoHashTable)
		}
		t := hashes.Table()
		h.Write(t[:])
	}
	if technology == TechnologySEVES {
		eip, err := entries.resetVector()
		if err != nil {
			return SEVDigest{}, err
		}
		h.Write(ResetVMSA(bspReset, shape)[:])
		ap := ResetVMSA(eip, shape)
		for range shape.VCPUs - 1 {
			h.Write(ap[:])
		}
	}
	return SEVDigest(h.Sum(nil)), nil
}

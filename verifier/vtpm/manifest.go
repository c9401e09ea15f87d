package vtpm

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes of an SVSM's service attestation.
const (
	// NonceSize is the size of the nonce that a guest gives it.
	NonceSize = 64
	// MaxManifest is the largest manifest that is read.
	MaxManifest = 64 << 10

	guidEntry   = 24
	maxServices = 16
)

// GUIDs as they stand in memory, their first three fields little-endian.
// Source: AMD 58019 rev 1.00, section 7.
var (
	servicesGUID = [16]byte{0xbb, 0x9e, 0x84, 0x63, 0x92, 0x3d, 0x70, 0x46, 0xa1, 0xff, 0x58, 0xf9, 0xc9, 0x4b, 0x87, 0xbb}
	vtpmGUID     = [16]byte{0xeb, 0xf1, 0x76, 0xc4, 0x23, 0x01, 0xa5, 0x45, 0x96, 0x41, 0xb4, 0xe7, 0xdd, 0xe5, 0xbf, 0xe3}
)

// ServiceReportData is REPORT_DATA of a report that attests an SVSM's services:
// SHA-512 of the nonce, followed by the manifest.
// Source: AMD 58019 rev 1.00, section 7 (Attestation Protocol).
func ServiceReportData(nonce [NonceSize]byte, manifest []byte) [64]byte {
	h := sha512.New()
	h.Write(nonce[:])
	h.Write(manifest)
	return [64]byte(h.Sum(nil))
}

// ParseManifest returns the public area of the vTPM's endorsement key (EK) in an
// SVSM's manifest, which binds no other key. The manifest is that of the vTPM
// alone (SVSM_ATTEST_SINGLE_SERVICE), which is the public area, or that of all
// services (SVSM_ATTEST_SERVICES); numbers are little-endian:
//
//	offset  size  field
//	     0    16  63849ebb-3d92-4670-a1ff-58f9c94b87bb
//	    16     4  size of the manifest
//	    20     4  number n of services
//	    24   24n  each: GUID, offset (32 bits) and size (32 bits) of its manifest
//
// Source: AMD 58019 rev 1.00, section 7; COCONUT-SVSM, whose vTPM's manifest
// (version 0) is a TPMT_PUBLIC.
func ParseManifest(manifest []byte) (ek []byte, err error) {
	if len(manifest) > MaxManifest {
		return nil, fmt.Errorf("manifest: %d bytes, more than %d", len(manifest), MaxManifest)
	}
	ek = manifest
	if bytes.HasPrefix(manifest, servicesGUID[:]) {
		if ek, err = vtpmOf(manifest); err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
	}
	if _, err := parseEK(ek); err != nil {
		return nil, fmt.Errorf("manifest: public area of the EK: %w", err)
	}
	return ek, nil
}

// vtpmOf returns the vTPM's manifest in that of all services.
func vtpmOf(manifest []byte) ([]byte, error) {
	if len(manifest) < guidEntry {
		return nil, errTruncated
	}
	size, n := binary.LittleEndian.Uint32(manifest[16:]), binary.LittleEndian.Uint32(manifest[20:])
	if int64(size) != int64(len(manifest)) {
		return nil, fmt.Errorf("size (bytes 16 to 19): %d, want %d", size, len(manifest))
	}
	if n > maxServices || len(manifest) < guidEntry*int(n+1) {
		return nil, fmt.Errorf("services (bytes 20 to 23): %d, more than fit or than %d", n, maxServices)
	}
	var found []byte
	for i := range int(n) {
		entry := manifest[guidEntry*(i+1):][:guidEntry]
		offset, size := int64(binary.LittleEndian.Uint32(entry[16:])), int64(binary.LittleEndian.Uint32(entry[20:]))
		if offset < int64(guidEntry)*int64(n+1) || offset+size > int64(len(manifest)) {
			return nil, fmt.Errorf("service %d (from byte %d): bytes %d to %d are not behind the list, or not within the manifest", i, guidEntry*(i+1), offset, offset+size-1)
		}
		if [16]byte(entry) != vtpmGUID {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("service %d (from byte %d): a second vTPM", i, guidEntry*(i+1))
		}
		found = manifest[offset:][:size]
	}
	if found == nil {
		return nil, errors.New("no vTPM among the services")
	}
	return found, nil
}

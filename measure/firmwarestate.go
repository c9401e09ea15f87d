package measure

import (
	"errors"
	"fmt"
)

// FirmwareState is what of a firmware enters the launch digests beside its
// bytes: enough to compute further digests without the image. Numbers are bytes
// and guest-physical addresses.
type FirmwareState struct {
	Digest      Digest    `json:"digest"` // after the image
	Size        uint32    `json:"size"`   // of the image
	Sections    []Section `json:"sections"`
	ResetVector uint32    `json:"resetVector"`         // of the vCPUs beside the first
	HashTable   uint32    `json:"hashTable,omitempty"` // address; 0 where there is none
}

// State returns what further digests are computed from.
func (f *Firmware) State() FirmwareState {
	return FirmwareState{
		Digest:      f.digest,
		Size:        f.size,
		Sections:    append([]Section(nil), f.sections...),
		ResetVector: f.resetVector,
		HashTable:   f.hashTable,
	}
}

// Firmware returns a firmware that measures as the image does that s was made
// of. It is checked as an image is; that the digest is that image's is for the
// caller to know, who has it from a signed statement.
func (s FirmwareState) Firmware() (*Firmware, error) {
	fw := &Firmware{
		digest:      s.Digest,
		size:        s.Size,
		sections:    append([]Section(nil), s.Sections...),
		resetVector: s.ResetVector,
		hashTable:   s.HashTable,
	}
	if err := fw.check(); err != nil {
		return nil, fmt.Errorf("firmware's state: %w", err)
	}
	return fw, nil
}

func (f *Firmware) check() error {
	if err := checkSize(uint64(f.size)); err != nil {
		return err
	}
	if f.resetVector == 0 {
		return errors.New("reset vector: zero")
	}
	if len(f.sections) > maxSections {
		return fmt.Errorf("%d sections, more than %d", len(f.sections), maxSections)
	}
	if err := checkSections(f.sections, fourGiB-uint64(f.size)); err != nil {
		return err
	}
	return f.checkHashTable()
}

func checkSize(n uint64) error {
	if n == 0 || n%firmwareUnit != 0 || n > MaxFirmware {
		return fmt.Errorf("%d bytes, want a multiple of %d up to %d", n, firmwareUnit, MaxFirmware)
	}
	return nil
}

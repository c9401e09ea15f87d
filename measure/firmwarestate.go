package measure

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

// State returns what further digests are computed from. There is none of a
// firmware behind an SVSM: the zero value, which makes no firmware.
func (f *Firmware) State() FirmwareState {
	if f.svsm != nil {
		return FirmwareState{}
	}
	return FirmwareState{
		Digest:      f.digest,
		Size:        f.size,
		Sections:    append([]Section{}, f.sections...),
		ResetVector: f.resetVector,
		HashTable:   f.hashTable,
	}
}

// Firmware returns a firmware that measures as the image does that s was made
// of. It is checked as an image is, with a *FirmwareError; that the digest is
// that image's is for the caller to know, who has it from a signed statement.
func (s FirmwareState) Firmware() (*Firmware, error) {
	var p findings
	p.size(uint64(s.Size))
	if s.ResetVector == 0 {
		p.add(ProblemResetVectorZero, span{}, "reset vector: zero")
	}
	if n := len(s.Sections); n > maxSections {
		p.add(ProblemMetadataCount, span{}, "%d sections, more than %d", n, maxSections)
		return nil, p.err()
	}
	sections := append([]Section{}, s.Sections...)
	p.checkSections(sections, span{}, fourGiB-min(uint64(s.Size), fourGiB))
	if s.HashTable == 0 {
		p.add(ProblemNoHashTable, span{}, "no SEV hash table")
	}
	takesHashes := p.checkHashTable(sections, span{}, s.HashTable)
	if err := p.err(); err != nil {
		return nil, err
	}
	return &Firmware{
		digest:      s.Digest,
		size:        s.Size,
		sections:    sections,
		resetVector: s.ResetVector,
		hashTable:   s.HashTable,
		takesHashes: takesHashes,
		problems:    p.problems,
	}, nil
}

func (f *findings) size(n uint64) {
	if n == 0 || n%firmwareUnit != 0 {
		f.add(ProblemSize, span{}, "%d bytes, want a multiple of %d", n, firmwareUnit)
	}
	if n > MaxFirmware {
		f.add(ProblemTooLarge, span{}, "%d bytes, more than %d", n, MaxFirmware)
	}
}

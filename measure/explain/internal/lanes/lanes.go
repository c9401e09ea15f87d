// Package lanes computes SHA-384 of eight messages side by side: of the 112 bytes
// that extend a launch digest, and of whole pages. It is what makes a search of
// many launches fast, by AVX-512 where the machine has it and by crypto/sha512
// where not.
//
// It is not on the path of trust. Nobody's report is accepted by what it
// computes: whoever finds a digest with it computes that digest again with
// package measure. The package knows nothing of what the messages mean.
package lanes

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"
)

// Width is the number of messages that are hashed side by side.
const Width = 8

// Sizes in bytes.
const (
	DigestSize = sha512.Size384
	TailSize   = 64 // of what a digest is extended by
	PageSize   = 4096
)

const (
	blockSize   = sha512.BlockSize
	messageSize = DigestSize + TailSize
)

// Path is a way of computing.
type Path uint8

// The paths. Both give the same digests.
const (
	_        Path = iota
	Portable      // crypto/sha512, one lane after the other
	AVX512
)

// Paths are those that this machine has, the fastest first.
func Paths() []Path {
	if hasAVX512() {
		return []Path{AVX512, Portable}
	}
	return []Path{Portable}
}

func (p Path) String() string {
	switch p {
	case Portable:
		return "portable"
	case AVX512:
		return "AVX-512"
	default:
		return fmt.Sprintf("path %d", uint8(p))
	}
}

// state and block are words of SHA-512, each once for every lane.
type (
	state [8][Width]uint64
	block [blockSize / 8][Width]uint64
)

// Digests are eight digests, word by word.
type Digests [DigestSize / 8][Width]uint64

// Spread returns a digest in every lane.
func Spread(digest *[DigestSize]byte) (d Digests) {
	for lane := range Width {
		d.SetLane(lane, digest)
	}
	return d
}

// SetLane puts a lane's digest.
func (d *Digests) SetLane(lane int, digest *[DigestSize]byte) {
	for i := range d {
		d[i][lane] = binary.BigEndian.Uint64(digest[8*i:])
	}
}

// Lane returns a lane's digest.
func (d *Digests) Lane(lane int) (digest [DigestSize]byte) {
	for i := range d {
		binary.BigEndian.PutUint64(digest[8*i:], d[i][lane])
	}
	return digest
}

// Chains are eight digests, each with the tail that it is extended by: the next
// digest is SHA-384 over digest and tail.
type Chains struct {
	// message is digest, tail and the padding of SHA-512's first block.
	// Source: FIPS 180-4, section 5.1.2.
	//
	//	words  contents
	//	0–5    digest
	//	6–11   tail: a digest of what is added
	//	12–13  tail: the rest, the same in every lane
	//	14     a one bit, and zeros
	//	15     zeros; they go on into the second block, which ends with the length
	message block
}

// SetDigests puts the digests.
func (c *Chains) SetDigests(d *Digests) { copy(c.message[:], d[:]) }

// SetTails puts what the digests are extended by: in each lane a digest, and rest.
func (c *Chains) SetTails(d *Digests, rest *[TailSize - DigestSize]byte) {
	copy(c.message[6:], d[:])
	for i := range len(rest) / 8 {
		w := binary.BigEndian.Uint64(rest[8*i:])
		for lane := range Width {
			c.message[12+i][lane] = w
		}
	}
}

// Digest returns a lane's digest.
func (c *Chains) Digest(lane int) [DigestSize]byte { return (*Digests)(c.message[:]).Lane(lane) }

// Begins reports the lanes, one bit for each, whose digest's first eight bytes
// are word, big-endian.
func (c *Chains) Begins(word uint64) (lanes uint8) {
	for i, w := range &c.message[0] {
		if w == word {
			lanes |= 1 << i
		}
	}
	return lanes
}

// Extend replaces every lane's digest by the next one, on a path that this machine
// has.
func (c *Chains) Extend(p Path) {
	if p != AVX512 {
		c.extendPortable()
		return
	}
	c.message[14] = [Width]uint64{1 << 63, 1 << 63, 1 << 63, 1 << 63, 1 << 63, 1 << 63, 1 << 63, 1 << 63}
	s := initialState
	compress(&s, &c.message, &k)
	compressConstant(&s, &lengthOfMessage)
	copy(c.message[:], s[:DigestSize/8])
}

func (c *Chains) extendPortable() {
	var b [messageSize]byte
	d := (*Digests)(c.message[:])
	for lane := range Width {
		for i := range messageSize / 8 {
			binary.BigEndian.PutUint64(b[8*i:], c.message[i][lane])
		}
		digest := sha512.Sum384(b[:])
		d.SetLane(lane, &digest)
	}
}

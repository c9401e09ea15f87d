package lanes

import (
	"crypto/sha512"
	"encoding/binary"
	"math/bits"
)

// Pages are eight pages that are alike but for some fields.
type Pages struct {
	path  Path
	page  [PageSize]byte // the fields as NewPages found them
	first int            // the block with the first field

	before state         // after the blocks before it
	fields []block       // from the first field's to the last one's
	after  []*[80]uint64 // those behind, and the padding
}

// NewPages returns eight of the page, of which the bytes from from up to to may
// then be changed. Both are multiples of eight.
func NewPages(p Path, page *[PageSize]byte, from, to int) *Pages {
	s := &Pages{path: p, page: *page, first: from / blockSize, before: initialState}
	for i := range PageSize / blockSize {
		words := s.words(i)
		switch {
		case i*blockSize >= to:
			s.after = append(s.after, schedule(words))
		case i >= s.first:
			s.fields = append(s.fields, spread(words))
		case p == AVX512:
			compressConstant(&s.before, schedule(words))
		}
	}
	s.after = append(s.after, &lengthOfPage)
	return s
}

// Clone returns pages that can be changed beside s.
func (s *Pages) Clone() *Pages {
	c := *s
	c.fields = append([]block(nil), s.fields...)
	return &c
}

// words are those of a block.
func (s *Pages) words(i int) (w [16]uint64) {
	for t := range w {
		w[t] = binary.BigEndian.Uint64(s.page[i*blockSize+8*t:])
	}
	return w
}

// PutUint64 puts a field, little-endian, into one lane's page, at an offset that
// is a multiple of eight and lies where NewPages was told that fields do.
func (s *Pages) PutUint64(lane, offset int, value uint64) {
	s.fields[offset/blockSize-s.first][offset%blockSize/8][lane] = bits.ReverseBytes64(value)
}

// Hash returns the SHA-384 of each page.
func (s *Pages) Hash() Digests {
	if s.path != AVX512 {
		return s.hashPortable()
	}
	h := s.before
	for i := range s.fields {
		compress(&h, &s.fields[i], &k)
	}
	for _, kw := range s.after {
		compressConstant(&h, kw)
	}
	return Digests(h[:DigestSize/8])
}

func (s *Pages) hashPortable() (digests Digests) {
	page := s.page
	for lane := range Width {
		for i := range s.fields {
			for t := range s.fields[i] {
				binary.BigEndian.PutUint64(page[(s.first+i)*blockSize+8*t:], s.fields[i][t][lane])
			}
		}
		digest := sha512.Sum384(page[:])
		digests.SetLane(lane, &digest)
	}
	return digests
}

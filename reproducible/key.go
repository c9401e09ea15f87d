package reproducible

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"

	"github.com/kraudcloud/kattest/reproducible/lock"
)

// key is the digest of all that goes into an artefact: labelled values, each
// with its length, in the order in which they are added.
type key struct{ h hash.Hash }

// newKey begins the key of a recipe, which is named with a version that changes
// whenever the same inputs would give another result.
func newKey(recipe string) key {
	k := key{sha256.New()}
	k.add("recipe", []byte(recipe))
	return k
}

func (k key) add(label string, value []byte) {
	for _, b := range [][]byte{[]byte(label), value} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		k.h.Write(n[:])
		k.h.Write(b)
	}
}

func (k key) strings(label string, values []string) {
	for _, v := range values {
		k.add(label, []byte(v))
	}
}

// inputs adds content and names: a file's name decides where it is unpacked.
func (k key) inputs(label string, inputs []lock.Input) {
	for _, in := range inputs {
		k.add(label, []byte(in.Name))
		k.add(label, []byte(in.SHA256))
	}
}

func (k key) String() string { return hex.EncodeToString(k.h.Sum(nil)) }

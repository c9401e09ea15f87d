package lanes

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// Every path is tried on every machine that has it; each test's name says which.
func forPaths(t *testing.T, f func(t *testing.T, p Path)) {
	t.Helper()
	for _, p := range Paths() {
		t.Run(p.String(), func(t *testing.T) { f(t, p) })
	}
}

func random(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

// messagesOf are eight random messages, alike in the last bytes only.
func messagesOf(r *rand.Rand) (messages [Width][messageSize]byte) {
	for lane := range messages {
		random(r, messages[lane][:])
		copy(messages[lane][2*DigestSize:], messages[0][2*DigestSize:])
	}
	return messages
}

// chainsOf puts messages into lanes.
func chainsOf(messages *[Width][messageSize]byte) *Chains {
	var c Chains
	var digests, tails Digests
	for lane := range messages {
		digests.SetLane(lane, (*[DigestSize]byte)(messages[lane][:]))
		tails.SetLane(lane, (*[DigestSize]byte)(messages[lane][DigestSize:]))
	}
	c.SetDigests(&digests)
	c.SetTails(&tails, (*[TailSize - DigestSize]byte)(messages[0][2*DigestSize:]))
	return &c
}

// extend does to messages what Extend does to their digests.
func extend(messages *[Width][messageSize]byte) {
	for lane := range messages {
		digest := sha512.Sum384(messages[lane][:])
		copy(messages[lane][:], digest[:])
	}
}

func TestExtend(t *testing.T) {
	forPaths(t, func(t *testing.T, p Path) {
		r := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			messages := messagesOf(r)
			c := chainsOf(&messages)
			for range 3 {
				c.Extend(p)
				extend(&messages)
				for lane := range messages {
					if got := c.Digest(lane); !bytes.Equal(got[:], messages[lane][:DigestSize]) {
						t.Fatalf("lane %d: %x, want %x", lane, got, messages[lane][:DigestSize])
					}
				}
			}
		}
	})
}

func TestSpread(t *testing.T) {
	want := [DigestSize]byte{1, 2, 47: 3}
	d := Spread(&want)
	for lane := range Width {
		if got := d.Lane(lane); got != want {
			t.Errorf("lane %d: %x", lane, got)
		}
	}
}

func TestBegins(t *testing.T) {
	var c Chains
	var d Digests
	d.SetLane(2, &[DigestSize]byte{7: 9, 8: 1})
	d.SetLane(7, &[DigestSize]byte{7: 9, 8: 2})
	c.SetDigests(&d)
	for word, want := range map[uint64]uint8{9: 1<<2 | 1<<7, 0: 0xff &^ (1<<2 | 1<<7), 1: 0} {
		if got := c.Begins(word); got != want {
			t.Errorf("lanes %b begin with %d, want %b", got, word, want)
		}
	}
}

// pagesOf puts random values into n fields of a random page, and returns the
// eight pages that come about.
func pagesOf(r *rand.Rand, p Path, dense, from, n int) (*Pages, [Width][PageSize]byte) {
	var page [PageSize]byte
	for range dense {
		page[r.IntN(PageSize)] = byte(r.Uint32())
	}
	s := NewPages(p, &page, from, from+8*n).Clone()
	var want [Width][PageSize]byte
	for lane := range want {
		want[lane] = page
		for i := range n {
			v := r.Uint64()
			s.PutUint64(lane, from+8*i, v)
			binary.LittleEndian.PutUint64(want[lane][from+8*i:], v)
		}
	}
	return s, want
}

func TestPages(t *testing.T) {
	forPaths(t, func(t *testing.T, p Path) {
		r := rand.New(rand.NewPCG(3, 4))
		for _, tt := range []struct{ dense, from, fields int }{
			{0, 0, 1}, {16, 0x310, 1}, {100, 0x310, 21}, {PageSize, 0x78, 2}, {16, PageSize - 8, 1}, {9, 0, PageSize / 8},
		} {
			s, pages := pagesOf(r, p, tt.dense, tt.from, tt.fields)
			got := s.Hash()
			for lane := range pages {
				if got, want := got.Lane(lane), sha512.Sum384(pages[lane][:]); got != want {
					t.Fatalf("%+v, lane %d: %x, want %x", tt, lane, got, want)
				}
			}
		}
	})
}

// TestClone changes a clone, and hashes what it is one of.
func TestClone(t *testing.T) {
	forPaths(t, func(t *testing.T, p Path) {
		var page [PageSize]byte
		s := NewPages(p, &page, 8, 16)
		s.Clone().PutUint64(3, 8, 1)
		hashed := s.Hash()
		if got, want := hashed.Lane(3), sha512.Sum384(page[:]); got != want {
			t.Errorf("%x, want %x", got, want)
		}
	})
}

// TestPaths keeps a machine with AVX-512 from testing the other path alone.
func TestPaths(t *testing.T) {
	paths := Paths()
	if paths[len(paths)-1] != Portable {
		t.Errorf("%v lacks %v", paths, Portable)
	}
	if (paths[0] == AVX512) != hasAVX512() {
		t.Errorf("%v, but AVX-512 is %v", paths, hasAVX512())
	}
}

// FuzzExtend tells eight lanes of different messages apart from crypto/sha512.
func FuzzExtend(f *testing.F) {
	f.Add([]byte("112 bytes, repeated"), uint8(1))
	f.Fuzz(func(t *testing.T, seed []byte, steps uint8) {
		if len(seed) == 0 {
			return
		}
		data := bytes.Repeat(seed, Width*messageSize/len(seed)+1)
		for _, p := range Paths() {
			var messages [Width][messageSize]byte
			for lane := range messages {
				copy(messages[lane][:], data[lane*messageSize:])
				copy(messages[lane][2*DigestSize:], messages[0][2*DigestSize:])
			}
			c := chainsOf(&messages)
			for range steps%8 + 1 {
				c.Extend(p)
				extend(&messages)
			}
			for lane := range messages {
				if got := c.Digest(lane); !bytes.Equal(got[:], messages[lane][:DigestSize]) {
					t.Fatalf("%v, lane %d: %x, want %x", p, lane, got, messages[lane][:DigestSize])
				}
			}
		}
	})
}

// FuzzPages does so with pages.
func FuzzPages(f *testing.F) {
	f.Add(uint64(1), uint16(16), uint16(0x310/8), uint8(21))
	f.Fuzz(func(t *testing.T, seed uint64, dense, from uint16, fields uint8) {
		first := int(from) % (PageSize / 8)
		n := min(int(fields)+1, PageSize/8-first)
		for _, p := range Paths() {
			s, pages := pagesOf(rand.New(rand.NewPCG(seed, 0)), p, int(dense), 8*first, n)
			got := s.Hash()
			for lane := range pages {
				if got, want := got.Lane(lane), sha512.Sum384(pages[lane][:]); got != want {
					t.Fatalf("%v, lane %d: %x, want %x", p, lane, got, want)
				}
			}
		}
	})
}

// BenchmarkExtend runs on one processor: its candidates are those of a CPU-second.
func BenchmarkExtend(b *testing.B) {
	for _, p := range Paths() {
		b.Run(p.String(), func(b *testing.B) {
			var c Chains
			for b.Loop() {
				c.Extend(p)
			}
			b.ReportMetric(float64(b.N)*Width/b.Elapsed().Seconds()/1e6, "Mcandidates/s")
		})
	}
}

func BenchmarkPages(b *testing.B) {
	for _, p := range Paths() {
		b.Run(p.String(), func(b *testing.B) {
			// As full as the page of a processor at its start, and two fields.
			s, _ := pagesOf(rand.New(rand.NewPCG(5, 6)), p, 50, 0x310, 21)
			for b.Loop() {
				s.Hash()
			}
			b.ReportMetric(float64(b.N)*Width/b.Elapsed().Seconds()/1e6, "Mpages/s")
		})
	}
}

package explain

import (
	"fmt"
	"slices"

	"github.com/kraudcloud/kattest/measure"
)

// boot is what is booted: a source's firmware, and what the kernel hashes are of.
type boot struct {
	firmware int // the source's index
	hashes   *measure.KernelHashes
	kernel   int // the source's index; as the following, only where there are hashes
	initrd   int // the source's index, or noInitrd
	cmdline  string
	differs  int // flags in which it differs from the nearest source
}

const noInitrd = -1

// boots are all that differ in what they measure, by the first sources that have
// each part.
func (s Space) boots() ([]boot, error) {
	var all []boot
	for _, f := range s.firmwares() {
		all = append(all, boot{firmware: f})
		if _, ok := s.Sources[f].Firmware.HashTable(); !ok {
			continue
		}
		for _, k := range s.firsts(func(src Source) any { return src.Kernel }) {
			if !s.Sources[k].hasKernel() {
				continue
			}
			for _, i := range s.initrds() {
				for _, c := range s.cmdlines() {
					b := boot{firmware: f, kernel: k, initrd: i, cmdline: c}
					h, err := measure.NewKernelHashes(s.Sources[k].Kernel, s.initrd(i), c)
					if err != nil {
						return nil, err
					}
					b.hashes = &h
					all = append(all, b)
				}
			}
		}
	}
	for i := range all {
		all[i].differs = s.nearestSource(all[i])
	}
	return all, nil
}

func (s Space) initrd(i int) measure.Hash {
	if i == noInitrd {
		return measure.NoInitrd()
	}
	return s.Sources[i].Initrd
}

func (src Source) hasKernel() bool { return src.Kernel != measure.Hash{} }

// wantsHashes reports whether the source is to be launched with kernel hashes.
func (src Source) wantsHashes() bool {
	_, ok := src.Firmware.HashTable()
	return ok && src.hasKernel()
}

// initrds are the first sources that have each initrd, and none at all.
func (s Space) initrds() []int {
	first := s.firsts(func(src Source) any { return src.Initrd })
	first = slices.DeleteFunc(first, func(i int) bool {
		return !s.Sources[i].hasKernel() || s.Sources[i].Initrd == measure.NoInitrd()
	})
	return append(first, noInitrd)
}

// firmwares are the first sources that have each firmware.
func (s Space) firmwares() []int {
	return s.firsts(func(src Source) any { return firmwareKey(src.Firmware) })
}

// firmwareKey is the same for firmwares that measure alike. One behind an SVSM
// has no state, but a digest of its own.
func firmwareKey(f *measure.Firmware) string { return fmt.Sprintf("%v %+v", f.Digest(), f.State()) }

// firsts are the indices of the sources that are the first with their key.
func (s Space) firsts(key func(Source) any) []int {
	var first []int
	seen := map[any]bool{}
	for i, src := range s.Sources {
		if k := key(src); !seen[k] {
			seen[k] = true
			first = append(first, i)
		}
	}
	return first
}

// nearestSource returns in how many flags b differs from the nearest source.
func (s Space) nearestSource(b boot) int {
	least := -1
	for i := range s.Sources {
		if n := len(s.bootDifferences(b, i)); least < 0 || n < least {
			least = n
		}
	}
	return least
}

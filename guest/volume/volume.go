// Package volume is what stands between a disk of the host's and a file system
// of the guest's: dm-crypt with AES-XTS and HMAC-SHA-256 over each block, on
// dm-integrity, which keeps a tag for each block beside it.
//
// There is no header on the disk. All parameters are fixed here, but for the
// keys and the disk's size, which the launch spec gives; the superblock that
// dm-integrity wants stands in the guest's memory. What each choice is for is
// told in docs/adr/0023-volumes.md.
//
// What is read is what this guest, or an earlier one with the same key, wrote
// at the same place of the same volume. The package does not check that it is
// what was written last: the host can put back an older block, or all of them.
package volume

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// BlockSize is the unit that is encrypted and authenticated, in bytes.
const BlockSize = 4096

// MinSecret is the least that a secret has, in bytes. It must be random: it is
// not stretched.
const MinSecret = 32

// Kind says what a crash leaves behind.
type Kind int

// The values of Kind.
const (
	// Persistent volumes have dm-integrity's journal: a block and its tag
	// reach the disk together.
	Persistent Kind = iota + 1
	// Ephemeral ones are never opened again.
	Ephemeral
)

// Lengths of keys, in bytes.
const (
	cipherKeySize = 2*32 + 32 // AES-256-XTS, then HMAC-SHA-256, as dm-crypt takes them
	macKeySize    = 32        // the journal's HMAC-SHA-256
)

// Keys are of one volume.
type Keys struct {
	cipher [cipherKeySize]byte
	mac    [macKeySize]byte
	// UUID is the file system's. It tells nothing of the keys.
	UUID [16]byte
}

// NewKeys derives the keys of the volume of that name, by HKDF-SHA-256 (RFC
// 5869): with one secret for two volumes, the host cannot swap their disks.
func NewKeys(secret []byte, name string) (Keys, error) {
	if len(secret) < MinSecret {
		return Keys{}, fmt.Errorf("a volume's secret of %d bytes, want %d at least", len(secret), MinSecret)
	}
	var k Keys
	all, err := hkdf.Key(sha256.New, secret, []byte("kattest volume v1"), name, cipherKeySize+macKeySize+len(k.UUID))
	if err != nil {
		return Keys{}, fmt.Errorf("deriving a volume's keys: %w", err)
	}
	rest := all[copy(k.cipher[:], all):]
	copy(k.UUID[:], rest[copy(k.mac[:], rest):])
	k.UUID[6] = k.UUID[6]&0x0f | 0x80 // version 8, RFC 9562
	k.UUID[8] = k.UUID[8]&0x3f | 0x80
	return k, nil
}

// line is one of a table of the device mapper.
type line struct {
	sectors uint64 // of 512 bytes
	target  string
	params  string
}

// What makes a tag: dm-crypt puts a random IV and the HMAC there.
const tagSize = 16 + 32

// joined returns the lines that put the superblock, at sector of memory, before the disk.
func (g geometry) joined(memory string, sector uint64, disk string) []line {
	return []line{
		{superblockSectors, "linear", memory + " " + strconv.FormatUint(sector, 10)},
		{g.disk, "linear", disk + " 0"},
	}
}

// integrity returns dm-integrity's line.
// Source: Linux 6.12, Documentation/admin-guide/device-mapper/dm-integrity.rst.
func (g geometry) integrity(device string, k *Keys) []line {
	mode, options := "D", 5
	mac := ""
	if g.kind == Persistent {
		mode, options = "J", 6
		mac = " journal_mac:hmac(sha256):" + hex.EncodeToString(k.mac[:])
	}
	params := fmt.Sprintf("%s 0 %d %s %d block_size:%d interleave_sectors:%d buffer_sectors:%d journal_sectors:%d fix_padding%s",
		device, tagSize, mode, options, BlockSize, interleaveSectors, bufferSectors, journalSectors, mac)
	return []line{{g.data, "integrity", params}}
}

// crypt returns dm-crypt's line: an IV for each write, since a host that sees
// every write would learn from XTS with a fixed one which parts of a block have
// changed; the HMAC covers the block's number, the IV and the ciphertext.
// Source: Linux 6.12, Documentation/admin-guide/device-mapper/dm-crypt.rst.
func (g geometry) crypt(device string, k *Keys) []line {
	params := fmt.Sprintf("capi:authenc(hmac(sha256),xts(aes))-random %s 0 %s 0 2 integrity:%d:aead sector_size:%d",
		hex.EncodeToString(k.cipher[:]), device, tagSize, BlockSize)
	return []line{{g.data, "crypt", params}}
}

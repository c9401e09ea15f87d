package volume

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The keys never change for this version: a volume could not be opened again.
func TestKeysArePinned(t *testing.T) {
	k, err := NewKeys([]byte(strings.Repeat("a", MinSecret)), "data")
	if err != nil {
		t.Fatal(err)
	}
	// openssl kdf -keylen 144 -kdfopt digest:SHA256 -kdfopt key:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
	//   -kdfopt 'salt:kattest volume v1' -kdfopt info:data HKDF
	const (
		cipher = "40ba81124b97e641a5a1cc53bc5dbb8269dab7d9123a3c993a5ed8f86f2ba3f82d9a0373dadde118bdd4d3c31b7ad75c60c4244514bf9367df63fe8055b4e6b52591baa3108d8a720b29cea714796f03f88ea8f6730df6f2e612927655ee9b0e"
		mac    = "900e96fb7fc12a729f49bae43fc7d56e1f61b5dd417a8a43e3f9e8c926a38bf3"
		uuid   = "ce67c7d1656d8f5ba7b357b990e1e0cd" // but for the six bits of its version
	)
	got := []string{hex.EncodeToString(k.cipher[:]), hex.EncodeToString(k.mac[:]), hex.EncodeToString(k.UUID[:])}
	if diff := cmp.Diff([]string{cipher, mac, uuid}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	other, err := NewKeys([]byte(strings.Repeat("a", MinSecret)), "other")
	if err != nil || other.cipher == k.cipher || other.mac == k.mac || other.UUID == k.UUID {
		t.Errorf("another volume has the same keys, or none: %v", err)
	}
	if k, err := NewKeys(make([]byte, MinSecret-1), "data"); err == nil || k != (Keys{}) {
		t.Errorf("keys from a short secret: %v", err)
	}
}

// The kernel gives as many sectors as fit, in blocks. That it makes the same
// superblock is shown by internal/e2e.
// Source: Linux 6.12, drivers/md/dm-integrity.c, get_data_sector.
func TestGeometry(t *testing.T) {
	place := func(sector uint64) uint64 {
		area := sector >> log2Interleave
		return initialSectors + sector + (area+1)*tagRunSectors
	}
	for _, size := range []uint64{9 << 20, 64 << 20, 64<<20 + 4096, 300 << 20, 1 << 30, 8 << 40} {
		g, err := newGeometry(size, Persistent)
		if err != nil {
			t.Errorf("%d bytes: %v", size, err)
			continue
		}
		whole := superblockSectors + size/512
		if g.data%sectorsPerBlock != 0 || place(g.data-1) >= whole {
			t.Errorf("%d bytes: %d sectors do not fit", size, g.data)
		}
		// Another block would not fit; behind the last run of tags none may.
		if next := place(g.data + sectorsPerBlock - 1); next < whole {
			t.Errorf("%d bytes: %d sectors, and there is room for more", size, g.data)
		}
	}
	for _, size := range []uint64{0, 8 << 20, 64<<20 + 512} {
		if g, err := newGeometry(size, Persistent); err == nil || g != (geometry{}) {
			t.Errorf("%d bytes: %+v", size, g)
		}
	}
}

func TestTables(t *testing.T) {
	g, err := newGeometry(64<<20, Persistent)
	if err != nil {
		t.Fatal(err)
	}
	var k Keys
	k.cipher[0], k.mac[31] = 0xab, 0xcd
	zeros := func(n int) string { return strings.Repeat("00", n) }
	want := [][]line{
		{{8, "linear", "/dev/ram0 24"}, {131072, "linear", "/dev/vdc 0"}},
		{{g.data, "integrity", "/dev/dm-1 0 48 J 6 block_size:4096 interleave_sectors:32768 buffer_sectors:128 journal_sectors:16384 fix_padding journal_mac:hmac(sha256):" + zeros(31) + "cd"}},
		{{g.data, "crypt", "capi:authenc(hmac(sha256),xts(aes))-random ab" + zeros(95) + " 0 /dev/dm-2 0 2 integrity:48:aead sector_size:4096"}},
	}
	got := [][]line{g.joined(Memory, 24, "/dev/vdc"), g.integrity("/dev/dm-1", &k), g.crypt("/dev/dm-2", &k)}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(line{})); diff != "" {
		t.Errorf("persistent (-want +got):\n%s", diff)
	}
	g.kind = Ephemeral
	if got := g.integrity("/dev/dm-1", &k)[0].params; strings.Contains(got, "journal_mac") || !strings.Contains(got, " D 5 ") {
		t.Errorf("ephemeral: %q", got)
	}
}

func disk(t *testing.T, size int64, at int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if at >= 0 {
		if _, err := f.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// What is wrong with a disk is said before anything is written to it.
func TestRefused(t *testing.T) {
	const size = 64 << 20
	for _, tt := range []struct {
		name string
		do   func(Disk) (*Volume, error)
		disk string
		err  error
	}{
		{"first byte", Create, disk(t, size, 0), ErrNotBlank},
		{"last byte that is looked at", Create, disk(t, size, blankSize-1), ErrNotBlank},
		{"smaller, new", Create, disk(t, size-4096, -1), ErrSize},
		{"smaller", Open, disk(t, size-4096, -1), ErrSize},
		{"larger", Open, disk(t, size+4096, -1), ErrSize},
		{"none", Open, "/nonexistent", os.ErrNotExist},
		{"none, new", Create, "/nonexistent", os.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := tt.do(Disk{Name: "data", Node: tt.disk, Size: size, Kind: Persistent})
			if !errors.Is(err, tt.err) || v != nil {
				t.Errorf("%v, %v, want %v", v, err, tt.err)
			}
		})
	}
}

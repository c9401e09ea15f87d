package ext4

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func format(t *testing.T, size uint64, o Options) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	if err := Format(f, size, o, f.Sync); err != nil {
		t.Fatal(err)
	}
	return name
}

// check runs e2fsck, which changes nothing.
func check(t *testing.T, name string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("e2fsck")
	if err != nil {
		t.Skip("e2fsck, the judge of these tests, is not installed: e2fsprogs")
	}
	out, err := exec.Command(program, "-f", "-n", name).CombinedOutput()
	return string(out), err
}

var uuid = [16]byte{0xd5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0x9c}

// e2fsck finds nothing to mend, whatever the size.
func TestFormat(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name string
		size uint64
	}{
		{"smallest", MinSize},
		{"small", 100*mib + 4096},
		{"one group", 128 * mib},
		{"a tail too small for a group", 129 * mib},
		{"a tail of a group", 131 * mib},
		{"many groups", 5000 * mib},
		{"1 TiB", 1 << 40},
	} {
		for _, journal := range []bool{false, true} {
			t.Run(tt.name+map[bool]string{true: ", journal"}[journal], func(t *testing.T) {
				name := format(t, tt.size, Options{UUID: uuid, Journal: journal})
				if out, err := check(t, name); err != nil {
					t.Errorf("e2fsck: %v\n%s", err, out)
				}
			})
		}
	}
}

// The judge of TestFormat does find what is wrong.
func TestDamage(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   int64
	}{
		{"group descriptor", BlockSize + 0x1C},
		{"block bitmap", 2 * BlockSize},
		{"root directory", (2 + ownBlocks) * BlockSize},
		{"superblock", 1024 + 0x38},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := format(t, MinSize, Options{UUID: uuid, Journal: true})
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var b [1]byte
			if _, err := f.ReadAt(b[:], tt.at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 1
			if _, err := f.WriteAt(b[:], tt.at); err != nil {
				t.Fatal(err)
			}
			if out, err := check(t, name); err == nil {
				t.Errorf("e2fsck finds nothing:\n%s", out)
			}
		})
	}
}

func TestSizes(t *testing.T) {
	for _, size := range []uint64{0, MinSize - 1, MaxSize + 1} {
		err := Format(nil, size, Options{}, nil)
		if err == nil || !strings.Contains(err.Error(), "are not between") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// failing fails the nth write, and remembers the superblock.
type failing struct {
	n     int
	super bool
}

var errDisk = errors.New("disk failed")

func (f *failing) WriteAt(b []byte, off int64) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errDisk
	}
	f.super = f.super || off == 0
	return len(b), nil
}

// Whatever write fails, no superblock says that there is a file system.
func TestFailure(t *testing.T) {
	o := Options{UUID: uuid, Journal: true}
	for n := 0; ; n++ {
		f := &failing{n: n}
		err := Format(f, MinSize, o, func() error { return nil })
		if err == nil {
			if n < 5 || !f.super {
				t.Fatalf("%d writes, superblock %v", n, f.super)
			}
			break
		}
		if !errors.Is(err, errDisk) || f.super {
			t.Fatalf("write %d: %v, superblock %v", n, err, f.super)
		}
	}
	f := &failing{n: 1000}
	if err := Format(f, MinSize, o, func() error { return errDisk }); !errors.Is(err, errDisk) || f.super {
		t.Errorf("sync: %v, superblock %v", err, f.super)
	}
}

func TestSame(t *testing.T) {
	read := func() []byte {
		b, err := os.ReadFile(format(t, MinSize, Options{UUID: uuid}))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.Equal(read(), read()) {
		t.Error("two file systems of one size differ")
	}
}

// Source: the catalogue of parametrised CRC algorithms, CRC-16/ARC.
func TestCRC16(t *testing.T) {
	if got := crc16(0, []byte("123456789")); got != 0xBB3D {
		t.Errorf("%#x, want 0xbb3d", got)
	}
}

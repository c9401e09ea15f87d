package kattest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/measure"
)

// No file is read twice: each is a pipe here, which gives its bytes but once.
func TestFilesAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	written := make(chan error)
	pipe := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		go func() {
			w, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = w.Write(data)
				err = errors.Join(err, w.Close())
			}
			written <- err
		}()
		return path
	}
	kernel, initrd := bytes.Repeat([]byte("kernel"), 1e5), bytes.Repeat([]byte("initrd"), 2e5)
	flags := inputFlags{
		firmware: pipe("OVMF.fd", clitest.Firmware()), kernel: pipe("vmlinuz", kernel), initrd: pipe("initrd.cpio", initrd), cmdline: "quiet",
	}
	in, err := flags.read(measure.QEMU)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := <-written; err != nil {
			t.Error(err)
		}
	}
	want, err := measure.HashKernel(bytes.NewReader(kernel), bytes.NewReader(initrd), "quiet")
	if err != nil {
		t.Fatal(err)
	}
	if *in.hashes != want {
		t.Errorf("hashes %+v, want %+v", *in.hashes, want)
	}
	m, err := in.measure(single())
	if err != nil || len(m.Table) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

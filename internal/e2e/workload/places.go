package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// places says what the process finds in these folders, and how it writes there; then it
// says the length of the secret, and fails, so that it is started again if it may be.
func places(secret string, dirs []string) error {
	var said []string
	for _, dir := range dirs {
		line, err := place(dir)
		if err != nil {
			return err
		}
		said = append(said, line)
	}
	token, err := os.ReadFile(secret)
	if err != nil {
		return err
	}
	fmt.Printf("found %s; secret of %d bytes\n", strings.Join(said, ", "), len(token))
	os.Exit(3)
	return nil
}

// place says a folder's mode, owner and content, and what a write of 2 MiB fails with.
func place(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	names, err := filepath.Glob(dir + "/*")
	if err != nil {
		return "", err
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	answer := "ok"
	if err := os.WriteFile(dir+"/written", make([]byte, 2<<20), 0o600); err != nil {
		errno, _ := errors.AsType[syscall.Errno](err)
		answer = unix.ErrnoName(errno)
	}
	return fmt.Sprintf("%s %o %d:%d %v %s", dir, st.Mode&0o7777, st.Uid, st.Gid, names, answer), nil
}

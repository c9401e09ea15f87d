package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// files says what the kernel says of these files: mode, owner, links, content
// and file capabilities.
func files(names []string) error {
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		attr := make([]byte, 64)
		n, err := unix.Lgetxattr(name, "security.capability", attr)
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Printf("%s: %o %d:%d links %d, %d bytes %x, capability %x\n",
			name, st.Mode, st.Uid, st.Gid, st.Nlink, len(data), sha256.Sum256(data), attr[:max(n, 0)])
	}
	return nil
}

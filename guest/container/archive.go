package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/archive"
)

// ArchiveOperation is what is done with a path of the container's.
type ArchiveOperation string

// The operations.
const (
	ArchiveStat   ArchiveOperation = "stat"   // standard output: an archive.Stat in JSON, and a line feed
	ArchivePack   ArchiveOperation = "pack"   // the same, and a tar archive behind it
	ArchiveUnpack ArchiveOperation = "unpack" // standard input: a tar archive
)

// Archive is an operation on a path of the container's. A process does it whose root,
// user and group are the container's 0, with the workload's namespaces, cgroup, limits
// and filter, and no capabilities but those for files: an archive that misleads it
// reaches no more than the container's files.
type Archive struct {
	Operation ArchiveOperation `json:"operation"`
	Path      string           `json:"path"`
	KeepKinds bool             `json:"keepKinds"` // see archive.Options
	// User is whose what is unpacked becomes, as pod.Process.User; as the archive says
	// where it is empty.
	User string `json:"user"`
}

// Exit statuses of an archive's process. Its standard error says why.
const (
	ArchiveFailed   = 1
	ArchiveNotFound = 2 // there is no such path
	ArchiveRefused  = 3 // the archive or the path is malformed, or asks for what is not given
	ArchiveReadOnly = 4 // the file system is read-only
	ArchiveFull     = 5 // the file system is full
)

// archiveCapabilities are those to read and write whatever files the container has.
var archiveCapabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETFCAP"}

// Archive starts the process that does it.
func (c *Container) Archive(a Archive) (*Process, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	p := c.config.Process
	p.Args, p.Env = []string{ArchiveArg0, string(text)}, []string{}
	p.User, p.Groups, p.WorkingDir, p.Capabilities = "0:0", nil, "/", archiveCapabilities
	p.Terminal, p.Stdin, p.Init = false, a.Operation == ArchiveUnpack, false
	process, err := c.join(joining{Process: p, Archive: true})
	if err != nil {
		return nil, err
	}
	for _, stream := range []any{process.Stdin, process.Stdout} {
		if f, ok := stream.(*os.File); ok {
			widen(f)
		}
	}
	return process, nil
}

// pipeSize is what a user may have by default (fs.pipe-max-size), in bytes.
const pipeSize = 1 << 20

// widen makes a pipe hold more at a time. One that does not is only slower.
func widen(f *os.File) {
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}

// ArchiveMain is the process, in the container. It returns the exit status.
func ArchiveMain() int {
	err := hide() // from processes with fewer capabilities
	var a Archive
	if err == nil && len(os.Args) != 2 {
		err = errors.New("no operation")
	}
	if err == nil {
		err = json.Unmarshal([]byte(os.Args[1]), &a)
	}
	if err == nil {
		err = a.do()
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return archiveExit(err)
}

func archiveExit(err error) int {
	if _, ok := errors.AsType[*archive.RefusedError](err); ok {
		return ArchiveRefused
	}
	for target, exit := range map[error]int{
		fs.ErrNotExist: ArchiveNotFound,
		unix.ENOTDIR:   ArchiveRefused,
		unix.ELOOP:     ArchiveRefused,
		unix.EROFS:     ArchiveReadOnly,
		unix.ENOSPC:    ArchiveFull,
		unix.EDQUOT:    ArchiveFull,
	} {
		if errors.Is(err, target) {
			return exit
		}
	}
	return ArchiveFailed
}

func (a Archive) do() error {
	switch a.Operation {
	case ArchiveStat, ArchivePack:
		s, err := archive.Lookup(a.Path)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(s); err != nil || a.Operation == ArchiveStat {
			return err
		}
		return archive.Pack(os.Stdout, a.Path)
	case ArchiveUnpack:
		o := archive.Options{KeepKinds: a.KeepKinds}
		if a.User != "" {
			u, err := resolveUser(a.User, nil)
			if err != nil {
				return err
			}
			o.Owner = &archive.Owner{UID: u.Uid, GID: u.Gid}
		}
		return archive.Unpack(a.Path, os.Stdin, o)
	}
	return fmt.Errorf("unknown operation %q", a.Operation)
}

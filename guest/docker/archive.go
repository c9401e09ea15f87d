package docker

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
)

// Bounds of an archive's process, in bytes.
const (
	maxPath       = 4096
	maxStat       = 32 << 10
	maxComplaint  = 4 << 10
	archiveBuffer = 256 << 10
)

// statHeader has what docker's clients want to know of a path before its archive.
const statHeader = "X-Docker-Container-Path-Stat"

// archiving is the process that does it, and what it complains of.
type archiving struct {
	*container.Process
	complaint []byte
	told      sync.WaitGroup
}

// archive starts an operation on the path that the request names.
func (s *Server) archive(c *call, a container.Archive) (*archiving, error) {
	a.Path = c.r.FormValue("path")
	if a.Path == "" || len(a.Path) > maxPath || strings.ContainsRune(a.Path, 0) {
		return nil, failure(http.StatusBadRequest, "path: missing, longer than %d bytes, or with a NUL", maxPath)
	}
	process, err := s.engine.Archive(a)
	if err != nil {
		return nil, err
	}
	p := &archiving{Process: process}
	p.told.Go(func() {
		defer process.Stderr.Close()
		p.complaint, _ = io.ReadAll(io.LimitReader(process.Stderr, maxComplaint))
		_, _ = io.Copy(io.Discard, process.Stderr)
	})
	return p, nil
}

// finish waits for the process' end, which must come: its streams are closed.
func (p *archiving) finish() error {
	p.Stdout.Close()
	p.told.Wait()
	exit, err := p.Wait()
	if err != nil || exit == 0 {
		return err
	}
	status := http.StatusInternalServerError
	switch exit {
	case container.ArchiveNotFound:
		status = http.StatusNotFound
	case container.ArchiveRefused:
		status = http.StatusBadRequest
	case container.ArchiveReadOnly:
		status = http.StatusForbidden
	}
	complaint := strings.TrimSpace(string(p.complaint))
	if complaint == "" {
		complaint = "the archive's process was ended"
	}
	return failure(status, "%s", complaint)
}

// pack answers with a path's archive, and to HEAD with what the path is.
func (s *Server) pack(c *call) error {
	a := container.Archive{Operation: container.ArchivePack}
	if c.r.Method == http.MethodHead {
		a.Operation = container.ArchiveStat
	}
	p, err := s.archive(c, a)
	if err != nil {
		return err
	}
	out := bufio.NewReaderSize(p.Stdout, archiveBuffer)
	line, err := readStat(out)
	if err != nil {
		if failed := p.finish(); failed != nil {
			return failed
		}
		return err
	}
	c.w.Header().Set(statHeader, base64.StdEncoding.EncodeToString(line))
	if a.Operation == container.ArchiveStat {
		if err := p.finish(); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	s.Notify(events.ActionArchivePath, map[string]string{"path": a.Path})
	c.w.Header().Set("Content-Type", "application/x-tar")
	c.w.WriteHeader(http.StatusOK)
	_, err = io.CopyBuffer(struct{ io.Writer }{c.w}, struct{ io.Reader }{out}, make([]byte, archiveBuffer))
	if errors.Join(err, p.finish()) != nil {
		panic(http.ErrAbortHandler) // so that the client does not take it for whole
	}
	return nil
}

// readStat reads and checks the line before an archive.
func readStat(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, failure(http.StatusInternalServerError, "the archive's process said nothing of the path")
	}
	var stat api.PathStat
	if err := json.Unmarshal(line, &stat); err != nil || len(line) > maxStat {
		return nil, failure(http.StatusInternalServerError, "the archive's process said %.80q", line)
	}
	return json.Marshal(stat)
}

// unpack writes an archive to a path.
func (s *Server) unpack(c *call) error {
	a := container.Archive{Operation: container.ArchiveUnpack, KeepKinds: c.flag("noOverwriteDirNonDir")}
	if c.flag("copyUIDGID") {
		if a.User = s.spec.Process.User; a.User == "" {
			a.User = "0:0"
		}
	}
	p, err := s.archive(c, a)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{p.Stdin}, struct{ io.Reader }{c.r.Body}, make([]byte, archiveBuffer))
	if err != nil && !errors.Is(err, unix.EPIPE) {
		// The client broke off: what the process has of the archive must not look whole.
		_ = p.Signal(unix.SIGKILL)
	}
	p.Stdin.Close()
	if failed := p.finish(); failed != nil {
		return failed
	}
	if err != nil {
		return failure(http.StatusBadRequest, "reading the archive: %v", err)
	}
	s.Notify(events.ActionExtractToDir, map[string]string{"path": a.Path})
	c.w.WriteHeader(http.StatusOK)
	return nil
}

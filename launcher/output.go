package launcher

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// OutputFile is the container's output, as far as the launch spec lets the host
// have it: one JSON object a line, in the form of docker's json-file driver. When
// it has maxOutputLog bytes it becomes OutputFile.1, in place of an older one.
const (
	OutputFile    = "container.log"
	oldOutputFile = OutputFile + ".1"
)

const (
	maxOutputLog  = 16 << 20 // bytes: a hostile guest must not fill the host's disk
	maxOutputLine = 16 << 10 // bytes of output in one record
)

// Output is one line of a container's output, or a part of a long one. Bytes
// that are not UTF-8 are replaced.
type Output struct {
	Log    string    `json:"log"`    // with its line feed, where it has one
	Stream string    `json:"stream"` // stdout or stderr
	Time   time.Time `json:"time"`   // when it reached the launcher
}

// outputLog writes OutputFile. A disk that is full does not stop the guest.
type outputLog struct {
	root *os.Root

	mu      sync.Mutex
	file    *os.File
	size    int64
	streams []*outputStream
}

// outputStream makes records of what is written.
type outputStream struct {
	log  *outputLog
	name string
	line []byte
}

// stream returns the writer of one of the container's streams.
func (l *outputLog) stream(name string) io.Writer {
	s := &outputStream{log: l, name: name}
	l.streams = append(l.streams, s)
	return s
}

func (s *outputStream) Write(p []byte) (int, error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		room := min(len(p), maxOutputLine-len(s.line))
		if i := bytes.IndexByte(p[:room], '\n'); i >= 0 {
			room = i + 1
		}
		s.line, p = append(s.line, p[:room]...), p[room:]
		if len(s.line) == maxOutputLine || s.line[len(s.line)-1] == '\n' {
			s.flush()
		}
	}
	return n, nil
}

func (s *outputStream) flush() {
	if len(s.line) == 0 {
		return
	}
	record, err := json.Marshal(Output{string(s.line), s.name, time.Now().UTC()})
	s.line = s.line[:0]
	if err == nil {
		s.log.append(append(record, '\n'))
	}
}

func (l *outputLog) append(record []byte) {
	if l.file != nil && l.size+int64(len(record)) > maxOutputLog {
		l.file.Close()
		l.file = nil
		_ = l.root.Rename(OutputFile, oldOutputFile) // else it is appended to, and bounded by the next look
	}
	if l.file == nil && l.open() != nil {
		return
	}
	n, err := l.file.Write(record)
	l.size += int64(n)
	if err != nil && n > 0 { // half a record would spoil the next one
		l.size -= int64(n)
		_ = l.file.Truncate(l.size)
	}
}

func (l *outputLog) open() error {
	f, err := l.root.OpenFile(OutputFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, size
	return nil
}

func (l *outputLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		s.flush()
	}
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// Logs calls yield with the output of the guest in dir, oldest first, until yield
// returns false. With follow it waits for more until the guest ends. Each time that
// all there is has been yielded, it calls idle.
func Logs(ctx context.Context, dir string, follow bool, yield func(Output) bool, idle func()) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	r := &logReader{root: root, yield: yield}
	defer r.close()
	if err := r.openOld(); err != nil {
		return err
	}
	for {
		// Asked before reading: what was written before the end is read after it.
		running, err := locked(root)
		if err != nil {
			return err
		}
		if more, err := r.read(); err != nil || !more {
			return err
		}
		idle()
		if !follow || !running {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// logReader reads OutputFile while it grows and is replaced.
type logReader struct {
	root  *os.Root
	yield func(Output) bool
	file  *os.File
	lines *bufio.Reader
	rest  []byte // of a line that is still being written
}

func (r *logReader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

// openOld begins with the older file, where there is one.
func (r *logReader) openOld() error {
	err := r.open(oldOutputFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (r *logReader) open(name string) error {
	f, err := r.root.Open(name)
	if err != nil {
		return err
	}
	r.close()
	r.file, r.lines, r.rest = f, bufio.NewReaderSize(f, 64<<10), nil
	return nil
}

// read reads all that is there, and says whether more is wanted.
func (r *logReader) read() (more bool, err error) {
	for {
		if r.file != nil {
			if more, err := r.readFile(); err != nil || !more {
				return more, err
			}
			if r.current() {
				return true, nil
			}
			// Replaced: what came to it last is read before the next is opened.
			if more, err := r.readFile(); err != nil || !more {
				return more, err
			}
		}
		if err := r.open(OutputFile); errors.Is(err, fs.ErrNotExist) {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
}

// current says whether the open file is the one that is written to.
func (r *logReader) current() bool {
	ours, errOurs := r.file.Stat()
	theirs, errTheirs := r.root.Stat(OutputFile)
	return errOurs != nil || errTheirs != nil || os.SameFile(ours, theirs)
}

func (r *logReader) readFile() (more bool, err error) {
	for {
		line, err := r.lines.ReadSlice('\n')
		r.rest = append(r.rest, line...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(r.rest) <= 16*maxOutputLine:
			continue
		case errors.Is(err, io.EOF):
			return true, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return false, err
		}
		var o Output
		if json.Unmarshal(r.rest, &o) == nil && !r.yield(o) { // a line that was cut is no one's
			return false, nil
		}
		r.rest = r.rest[:0]
	}
}

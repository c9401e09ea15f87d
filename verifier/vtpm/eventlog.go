package vtpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Bounds of event logs.
const (
	// MaxEventLog is the largest event log that is read, in bytes.
	MaxEventLog = 512 << 10
	maxEvents   = 8192
)

// EventLog is a firmware event log: what was measured into PCRs, in order. It
// proves nothing of itself: what it says is as true as its replay.
type EventLog struct {
	banks    []Bank // of which every event has a digest
	events   []event
	locality byte // of TPM2_Startup
}

// event is TCG_PCR_EVENT2 (PFP, section 9.2.2).
type event struct {
	pcr     int
	kind    uint32
	digests map[Bank][]byte
	data    []byte
}

// Types of events (PFP, section 9.4.1): one that is not measured, and those whose
// digest is that of their data.
const (
	evNoAction                = 0x00000003
	evSeparator               = 0x00000004
	evAction                  = 0x00000005
	evCRTMVersion             = 0x00000008
	evEFIVariableDriverConfig = 0x80000001
	evEFIAction               = 0x80000007
)

func ofItsData(kind uint32) bool {
	switch kind {
	case evSeparator, evAction, evCRTMVersion, evEFIVariableDriverConfig, evEFIAction:
		return true
	default:
		return false
	}
}

// specID and startupLocality begin the data of the events that are not measured.
const (
	specID          = "Spec ID Event03\x00"
	startupLocality = "StartupLocality\x00"
)

// ParseEventLog reads a crypto-agile event log (PFP, section 9), of at most
// MaxEventLog bytes, as Linux shows it in binary_bios_measurements. Numbers are
// little-endian. The first event, of SHA-1's format, names the algorithms:
//
//	size  field
//	   4  PCR, 0
//	   4  type, EV_NO_ACTION
//	  20  digest, 0
//	   4  size of the data
//	  16  "Spec ID Event03", 0
//	   8  platform class, version, errata, size of UINTN
//	   4  number n of algorithms
//	  4n  TPM_ALG_ID and size of its digests, 16 bits each
//	   1  size v of the vendor's data
//	   v  vendor's data
//
// Each that follows has PCR, type, the number of digests (32 bits), each as a
// TPM_ALG_ID and the digest, and the data with its size (32 bits) before it. Logs of
// the older format, which have SHA-1 alone, are refused.
func ParseEventLog(data []byte) (EventLog, error) {
	if len(data) > MaxEventLog {
		return EventLog{}, fmt.Errorf("event log: %d bytes, more than %d", len(data), MaxEventLog)
	}
	r := &reader{data: data}
	l, err := readHeader(r)
	if err != nil {
		return EventLog{}, fmt.Errorf("event log: first event: %w", err)
	}
	for len(r.data) > 0 {
		if len(l.events) == maxEvents {
			return EventLog{}, fmt.Errorf("event log: more than %d events", maxEvents)
		}
		at := len(data) - len(r.data)
		if err := l.read(r); err != nil {
			return EventLog{}, fmt.Errorf("event log: event %d (from byte %d): %w", len(l.events)+1, at, err)
		}
	}
	return l, nil
}

func readHeader(r *reader) (EventLog, error) {
	pcr, kind, digest, data := r.uint32(), r.uint32(), r.bytes(SHA1.Size()), r.sized()
	if r.short {
		return EventLog{}, errTruncated
	}
	if pcr != 0 || kind != evNoAction || len(bytes.TrimLeft(digest, "\x00")) > 0 || !bytes.HasPrefix(data, []byte(specID)) {
		return EventLog{}, fmt.Errorf("not %q: a log of SHA-1 alone, or none", strings.TrimRight(specID, "\x00"))
	}
	h := &reader{data: data}
	h.bytes(len(specID) + 8)
	n := h.uint32()
	if n == 0 || n > uint32(len(banks)) {
		return EventLog{}, fmt.Errorf("%d algorithms, want 1 to %d", n, len(banks))
	}
	var l EventLog
	for range n {
		bank, size := Bank(h.uint16()), h.uint16()
		if int(size) != bank.Size() || size == 0 {
			return EventLog{}, fmt.Errorf("%v with digests of %d bytes", bank, size)
		}
		for _, known := range l.banks {
			if known == bank {
				return EventLog{}, fmt.Errorf("%v twice", bank)
			}
		}
		l.banks = append(l.banks, bank)
	}
	vendor := h.bytes(1)
	if !h.short {
		h.bytes(int(vendor[0]))
	}
	if h.short || len(h.data) > 0 {
		return EventLog{}, errors.New("it does not end where its data does")
	}
	return l, nil
}

func (l *EventLog) read(r *reader) error {
	e := event{digests: map[Bank][]byte{}}
	pcr := r.uint32()
	e.kind = r.uint32()
	n := r.uint32()
	if r.short {
		return errTruncated
	}
	if n != uint32(len(l.banks)) {
		return fmt.Errorf("%d digests, want one for each of the log's %d algorithms", n, len(l.banks))
	}
	for range n {
		bank := Bank(r.uint16())
		if _, twice := e.digests[bank]; twice || bank.Size() == 0 {
			return fmt.Errorf("digest of %v, which is unknown or there twice", bank)
		}
		e.digests[bank] = r.bytes(bank.Size())
	}
	e.data = r.sized()
	if r.short {
		return errTruncated
	}
	for _, bank := range l.banks {
		if e.digests[bank] == nil {
			return fmt.Errorf("no digest of %v", bank)
		}
	}
	if e.kind == evNoAction { // some are of no PCR (0xffffffff)
		if bytes.HasPrefix(e.data, []byte(startupLocality)) && len(e.data) == len(startupLocality)+1 {
			l.locality = e.data[len(startupLocality)]
		}
		l.events = append(l.events, event{pcr: -1, kind: e.kind})
		return nil
	}
	if pcr >= PCRCount {
		return fmt.Errorf("PCR %d, want 0 to %d", pcr, PCRCount-1)
	}
	e.pcr = int(pcr)
	if ofItsData(e.kind) {
		for bank, digest := range e.digests {
			h := banks[bank].hash.New()
			h.Write(e.data)
			if !bytes.Equal(h.Sum(nil), digest) {
				return fmt.Errorf("type 0x%x: the digest of %v is not that of the data", e.kind, bank)
			}
		}
	}
	l.events = append(l.events, e)
	return nil
}

// Events is the number of events behind the first one.
func (l EventLog) Events() int { return len(l.events) }

// Replay returns the values that the log gives to the PCRs which it extends, in
// every bank. PCR 0 begins with the locality of TPM2_Startup, PCRs 17 to 22 with
// all bits set (PFP, section 3.3.3), the others with zero.
func (l EventLog) Replay() PCRs {
	all := PCRs{}
	for _, e := range l.events {
		if e.kind == evNoAction {
			continue
		}
		for bank, digest := range e.digests {
			p := PCR{bank, e.pcr}
			value, ok := all[p]
			if !ok {
				value = l.initial(p)
			}
			h := banks[bank].hash.New()
			h.Write(value)
			h.Write(digest)
			all[p] = h.Sum(nil)
		}
	}
	return all
}

func (l EventLog) initial(p PCR) []byte {
	value := make([]byte, p.Bank.Size())
	switch {
	case p.Index == 0:
		value[len(value)-1] = l.locality
	case p.Index >= 17 && p.Index <= 22:
		for i := range value {
			value[i] = 0xff
		}
	}
	return value
}

var errTruncated = errors.New("truncated")

// reader takes numbers and bytes from data. After it ran short, short is set and
// all that it returns is zero.
type reader struct {
	data  []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.data) {
		r.short, r.data = true, nil
		return nil
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// sized takes bytes with their size before them.
func (r *reader) sized() []byte {
	n := r.uint32()
	if uint64(n) > uint64(len(r.data)) {
		r.short, r.data = true, nil
		return nil
	}
	return r.bytes(int(n))
}

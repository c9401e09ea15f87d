package vtpm_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	peerlogs "github.com/google/go-eventlog/testdata"

	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// Logs of machines, from the tests of go-eventlog.
var recordedLogs = []struct {
	name string
	data []byte
}{
	{"rhel 8", peerlogs.Rhel8EventLog},
	{"ubuntu 18.04, SEV", peerlogs.Ubuntu1804AmdSevEventLog},
	{"ubuntu 21.04, no dbx", peerlogs.Ubuntu2104NoDbxEventLog},
	{"ubuntu 21.04, no Secure Boot", peerlogs.Ubuntu2104NoSecureBootEventLog},
	{"ubuntu 24.04, SEV-SNP", peerlogs.Ubuntu2404AmdSevSnpEventLog},
	{"cos 85, SEV", peerlogs.Cos85AmdSevEventLog},
	{"cos 93, SEV", peerlogs.Cos93AmdSevEventLog},
	{"cos 101, SEV", peerlogs.Cos101AmdSevEventLog},
	{"arch linux", peerlogs.ArchLinuxWorkstationEventLog},
	{"glinux", peerlogs.GlinuxAlexEventLog},
}

// Each recorded log replays to values to which go-eventlog's verifier replays it
// as well, bank by bank, and to no others.
func TestReplayAgreesWithPeer(t *testing.T) {
	hashes := map[vtpm.Bank]crypto.Hash{vtpm.SHA1: crypto.SHA1, vtpm.SHA256: crypto.SHA256, vtpm.SHA384: crypto.SHA384}
	for _, log := range recordedLogs {
		t.Run(log.name, func(t *testing.T) {
			ours, err := vtpm.ParseEventLog(log.data)
			if err != nil {
				t.Fatal(err)
			}
			replayed := ours.Replay()
			if len(replayed) < 8 {
				t.Fatalf("%d PCRs only", len(replayed))
			}
			theirs, err := tcg.ParseEventLog(log.data, tcg.ParseOpts{})
			if err != nil {
				t.Fatal(err)
			}
			for pcr, value := range replayed {
				mr := register.PCR{Index: pcr.Index, Digest: value, DigestAlg: hashes[pcr.Bank]}
				if _, err := theirs.Verify([]register.MR{mr}); err != nil {
					t.Errorf("%v: %v", pcr, err)
				}
				mr.Digest = bytes.Clone(value)
				mr.Digest[0] ^= 1
				if _, err := theirs.Verify([]register.MR{mr}); err == nil {
					t.Errorf("%v: the peer replays to another value as well", pcr)
				}
			}
		})
	}
}

// The values that the machine's own TPM held, as go-eventlog v0.0.2 records them
// (tpmeventlog/replay_test.go, Rhel8GCE, SHA-256).
func TestReplayOfMachine(t *testing.T) {
	log, err := vtpm.ParseEventLog(peerlogs.Rhel8EventLog)
	if err != nil {
		t.Fatal(err)
	}
	replayed := log.Replay()
	for index, want := range map[int]string{
		0:  "24af52a4f429b71a3184a6d64cddad17e54ea030e2aa6576bf3a5a3d8bd3328f",
		1:  "454220afaa80c83c3839f6cccd8b3c88bf4f562316a9dda1121c578c9e005a53",
		4:  "758a3d35f1b0ff5b135dacd07db0c8132c0ac665d944090d4bf96e66447a245c",
		7:  "5fd54361d580eb7592adb8deb236ff35444ceeac7148f24b3de63c041f12b3da",
		8:  "25c3874041ebd4e9a21b6ed71b624a7bfa99907a8dcea7f129a4c64cbaf5829a",
		9:  "d43b2f61eb18b4791812ff5f20ab20e4ef621ba683370bedf5dbdf518b3a8078",
		14: "d8f57ebcc1a23cc46832696e1a657f720e1be8f5b405bb7204682114e363b455",
	} {
		if got := hex.EncodeToString(replayed[vtpm.PCR{Bank: vtpm.SHA256, Index: index}]); got != want {
			t.Errorf("PCR %d: %s, want %s", index, got, want)
		}
	}
}

// eventLog makes a log of SHA-256 and SHA-384 whose events have their data's
// digest.
func eventLog(events ...loggedEvent) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = le.AppendUint32(spec, 2)
	for _, alg := range []uint16{0x000b, 32, 0x000c, 48} {
		spec = le.AppendUint16(spec, alg)
	}
	spec = append(spec, 0)
	log := make([]byte, 28)
	le.PutUint32(log[4:], 3)
	log = append(le.AppendUint32(log, uint32(len(spec))), spec...)
	for _, e := range events {
		for _, n := range []uint32{e.pcr, e.kind, 2} {
			log = le.AppendUint32(log, n)
		}
		sum256, sum384 := sha256.Sum256(e.data), sha512.Sum384(e.data)
		log = append(le.AppendUint16(log, 0x000b), sum256[:]...)
		log = append(le.AppendUint16(log, 0x000c), sum384[:]...)
		log = append(le.AppendUint32(log, uint32(len(e.data))), e.data...)
	}
	return log
}

type loggedEvent struct {
	pcr, kind uint32
	data      []byte
}

// Whatever byte is altered, the log is refused or replays to other values; but
// for the platform's class and version in the first event, and for the type,
// which no digest covers.
func TestEventLogAltered(t *testing.T) {
	log := eventLog(loggedEvent{4, 0x80000007, []byte("Calling EFI Application")}, loggedEvent{7, 4, make([]byte, 4)})
	genuine, err := vtpm.ParseEventLog(log)
	if err != nil {
		t.Fatal(err)
	}
	want := genuine.Replay()
	if len(want) != 4 {
		t.Fatalf("%d values, want those of two PCRs in two banks", len(want))
	}
	const header = 28 + 4 + 16 + 8 + 4 + 8 + 1
	free := func(i int) bool {
		first := header + 4
		second := first + 4 + 4 + 34 + 50 + 4 + len("Calling EFI Application") + 4
		return i >= 48 && i < 56 || i >= first && i < first+4 || i >= second && i < second+4
	}
	for i := range log {
		for bit := range 8 {
			altered := bytes.Clone(log)
			altered[i] ^= 1 << bit
			l, err := vtpm.ParseEventLog(altered)
			if err == nil && !free(i) && reflect.DeepEqual(l.Replay(), want) {
				t.Errorf("byte %d, bit %d: not seen", i, bit)
			}
		}
	}
	for n := range log {
		if l, err := vtpm.ParseEventLog(log[:n]); err == nil && reflect.DeepEqual(l.Replay(), want) {
			t.Errorf("the first %d bytes replay to the same", n)
		}
	}
	if _, err := vtpm.ParseEventLog(append(bytes.Clone(log), 0)); err == nil {
		t.Error("a log with a byte behind it is read")
	}
}

func FuzzParseEventLog(f *testing.F) {
	for _, log := range recordedLogs {
		f.Add(log.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := vtpm.ParseEventLog(data)
		if err != nil && l.Events() > 0 {
			t.Error("an error with a value")
		}
		l.Replay()
	})
}

package hostile

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/simpsp"
)

// answer changes the framed answers of the PSP.
func answer(change func(b []byte) []byte) func(*host) error {
	return func(h *host) error {
		return h.psp(func(_ int, _, b []byte) ([]byte, error) { return change(b), nil })
	}
}

// field puts a number of 32 bits into the framed answers.
func field(offset int, v uint32) func(*host) error {
	return answer(func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[offset:], v)
		return b
	})
}

// pspLies are answers to the agent's first request, by which it learns HOST_DATA.
// Under SEV-SNP the processor encrypts and authenticates its answers; on the simulated
// platform the agent has their form alone.
func pspLies() []lie {
	return []lie{
		{"as it answers", answer(func(b []byte) []byte { return b }), ""},
		{"length of nothing", answer(func([]byte) []byte { return make([]byte, 4) }), "MSG_REPORT_RSP: length 0"},
		{"length without bound", field(0, 1<<32-1), "MSG_REPORT_RSP: length 4294967295"},
		{"status", field(statusAt, 0x16), "MSG_REPORT_RSP [0x00:0x04]: STATUS 0x16"},
		{"size of the report", field(sizeAt, port.ReportSize+1), "MSG_REPORT_RSP [0x04:0x08]: REPORT_SIZE 1185"},
		{"reserved bytes", field(reservedAt, 1), "MSG_REPORT_RSP [0x08:0x20]: reserved bytes"},
		{"late", func(h *host) error {
			return h.psp(func(int, []byte, []byte) ([]byte, error) { return nil, errSilence })
		}, "simulated PSP: MSG_REPORT_RSP: reading its length"},
		{"version below", field(reportAt, 1), "report [0x00:0x04]: VERSION 1"},
		{"version above", field(reportAt, 6), "report [0x00:0x04]: VERSION 6"},
		{"policy that lets the host debug", field(reportAt+policyAt, 0xb0000), "POLICY 0xb0000 lets the host debug the guest"},
		{"another VMPL", field(reportAt+vmplAt, 1), "report [0x30:0x34]: VMPL 1"},
		{"for another request", field(reportAt+reportDataAt, 0), "report [0x50:0x90]: REPORT_DATA 00000000"},
		{"of another guest", func(h *host) error {
			return h.psp(func(_ int, request, b []byte) ([]byte, error) {
				return launched(request, b, func(_ *[48]byte, hostData *[32]byte, _ *uint64) { hostData[0] ^= 1 })
			})
		}, "HOST_DATA of the report is"},
	}
}

// challenged leaves the first answer as it is: the guest runs.
func challenged(lie func(request, first, b []byte) ([]byte, error)) func(*host) error {
	return func(h *host) error {
		var first []byte
		return h.psp(func(n int, request, b []byte) ([]byte, error) {
			if n == 0 {
				first = bytes.Clone(b)
				return b, nil
			}
			return lie(request, first, b)
		})
	}
}

// relaunched answers as for a guest that was launched otherwise.
func relaunched(change func(measurement *[48]byte, hostData *[32]byte, policy *uint64)) func(*host) error {
	return challenged(func(request, _, b []byte) ([]byte, error) { return launched(request, b, change) })
}

// reportLies are told to clients, through a guest that runs: it goes on, and the
// client does not believe it.
func reportLies() []lie {
	bytesOf := func(change func(report []byte)) func(*host) error {
		return challenged(func(_, _, b []byte) ([]byte, error) {
			change(b[reportAt:])
			return b, nil
		})
	}
	return []lie{
		{"as it answers", challenged(func(_, _, b []byte) ([]byte, error) { return b, nil }), ""},
		{"replayed", challenged(func(_, first, _ []byte) ([]byte, error) { return first, nil }), "no report is to be had"},
		{"malformed", challenged(func(_, _, b []byte) ([]byte, error) { return make([]byte, len(b)), nil }), "no report is to be had"},
		{"with the signature of an earlier one", challenged(func(_, first, b []byte) ([]byte, error) {
			const signature = reportAt + 0x2a0
			return append(b[:signature], first[signature:]...), nil
		}), "signature"},
		{"with another measurement", relaunched(func(measurement *[48]byte, _ *[32]byte, _ *uint64) { measurement[0] ^= 1 }), "not one of the release's"},
		{"with another HOST_DATA", relaunched(func(_ *[48]byte, hostData *[32]byte, _ *uint64) { hostData[0] ^= 1 }), "another launch spec"},
		{"with a policy that lets it migrate", relaunched(func(_ *[48]byte, _ *[32]byte, policy *uint64) { *policy |= 1 << 18 }), "migrat"},
		{"altered where the signature covers it", bytesOf(func(r []byte) { r[measurementAt] ^= 1 }), "signature"},
		{"with a signature altered", bytesOf(func(r []byte) { r[0x2a0] ^= 1 }), "signature"},
		{"with a chip another", bytesOf(func(r []byte) { r[0x1a0] ^= 1 }), "chip"},
		{"by another PSP", challenged(func(request, _, b []byte) ([]byte, error) {
			dir, err := os.MkdirTemp("", "kattest-psp-")
			if err != nil {
				return nil, err
			}
			defer os.RemoveAll(dir)
			psp, err := simpsp.Load(dir)
			if err != nil {
				return nil, err
			}
			return launchedBy(psp, request, b, func(*[48]byte, *[32]byte, *uint64) {})
		}), "certificate"},
	}
}

func TestReports(t *testing.T) {
	t.Parallel()
	dir := summon(t, nil, "serve", ":8080")
	for _, l := range reportLies() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, dir, "reports/"+l.name)
			r := run(t, kattest("attest", g.spec, g.agent))
			if l.want == "" {
				r.want(t, 0, "SIMULATED VERIFIED")
				return
			}
			if r.exit == 0 {
				t.Error("exit status 0")
			}
			r.want(t, r.exit, l.want)
		})
	}
}

package simpsp

import (
	"errors"
	"fmt"
	"io"

	"github.com/kraudcloud/kattest/guest/port"
)

// statusInvalidParam is INVALID_PARAM. Source: Linux 6.12,
// include/uapi/linux/psp-sev.h, SEV_RET_INVALID_PARAM.
const statusInvalidParam = 0x16

// Serve answers report requests from rw, in the framing of guest/port, until it
// ends. A request is 96 bytes whatever it holds, so a malformed one is answered
// with STATUS 0x16 (INVALID_PARAM) and no report, and the next is read behind
// it. An end between two requests is no error.
func (g *Guest) Serve(rw io.ReadWriter) error {
	certificates := g.Certificates()
	for {
		var raw [port.ReportRequestSize]byte
		if _, err := io.ReadFull(rw, raw[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("simulated PSP: reading a request: %w", err)
		}
		rsp := port.ReportResponse{Status: statusInvalidParam}
		if request, err := port.DecodeReportRequest(raw); err == nil {
			rsp = port.ReportResponse{
				Report:       g.Report(request.ReportData, request.VMPL),
				Certificates: certificates,
			}
		}
		if _, err := rw.Write(rsp.Encode()); err != nil {
			return fmt.Errorf("simulated PSP: writing a response: %w", err)
		}
	}
}

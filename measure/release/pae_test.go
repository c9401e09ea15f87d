package release

import (
	"bytes"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

func TestPAE(t *testing.T) {
	for _, payload := range [][]byte{nil, []byte("{}"), {0, 0xff, '%', 's', ' '}, bytes.Repeat([]byte("a"), 12345)} {
		for _, kind := range []string{"", PayloadType, "%d é"} {
			if got, want := PAE(kind, payload), dsse.PAE(kind, payload); !bytes.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
}

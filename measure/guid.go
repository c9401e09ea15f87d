package measure

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// guid is a GUID as it stands in memory: its first three groups little-endian.
type guid [16]byte

// mustGUID reads a GUID of this package's own.
func mustGUID(s string) guid {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(guid{}) {
		panic("measure: not a GUID: " + s)
	}
	return guid{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}

func (g guid) String() string {
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x",
		g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8:10], g[10:])
}

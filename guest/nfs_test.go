package guest

import (
	"net/netip"
	"testing"
)

func TestNFSOptions(t *testing.T) {
	own := []netip.Prefix{netip.MustParsePrefix("fd00::15/64"), netip.MustParsePrefix("10.0.2.15/24")}
	for _, tt := range []struct {
		server string
		own    []netip.Prefix
		want   string
	}{
		{"10.0.2.2", own, "vers=4.1,proto=tcp,port=2049,sec=sys,hard,addr=10.0.2.2,clientaddr=10.0.2.15"},
		{"fd00::2", own, "vers=4.1,proto=tcp6,port=2049,sec=sys,hard,addr=fd00::2,clientaddr=fd00::15"},
		{"fd00::2", own[1:], "vers=4.1,proto=tcp6,port=2049,sec=sys,hard,addr=fd00::2,clientaddr=::"},
		{"10.0.2.2", nil, "vers=4.1,proto=tcp,port=2049,sec=sys,hard,addr=10.0.2.2,clientaddr=0.0.0.0"},
	} {
		if got := nfsOptions(netip.MustParseAddr(tt.server), tt.own); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.server, got, tt.want)
		}
	}
}

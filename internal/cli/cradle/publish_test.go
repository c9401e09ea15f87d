package cradle

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/launcher/vm"
)

func TestParsePublish(t *testing.T) {
	local, all := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("0.0.0.0")
	for in, want := range map[string]vm.Forward{
		"80":                {HostAddress: local, HostPort: 0, GuestPort: 80, Protocol: "tcp"},
		"8080:80":           {HostAddress: local, HostPort: 8080, GuestPort: 80, Protocol: "tcp"},
		"53:53/udp":         {HostAddress: local, HostPort: 53, GuestPort: 53, Protocol: "udp"},
		"0.0.0.0:3306:3306": {HostAddress: all, HostPort: 3306, GuestPort: 3306, Protocol: "tcp"},
		"127.0.0.1::80/tcp": {HostAddress: local, HostPort: 0, GuestPort: 80, Protocol: "tcp"},
	} {
		if got, err := parsePublish(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                `"" is not a port`,
		"0":               `"0" is not a port`,
		"65536":           `"65536" is not a port`,
		"80-81":           `"80-81" is not a port`,
		"80/sctp":         `protocol "sctp" is neither`,
		"80/":             `protocol "" is neither`,
		"x:80":            `"x" is not a port`,
		"localhost:80:80": `"localhost" is not an IPv4 address`,
		"[::1]:80:80":     `"[::1]" is not an IPv4 address`,
		":80:80":          `"" is not an IPv4 address`,
	} {
		if got, err := parsePublish(in); err == nil || !strings.Contains(err.Error(), want) || got != (vm.Forward{}) {
			t.Errorf("%q: %+v, %v, want an error with %q", in, got, err, want)
		}
	}
}

// What is accepted, written out in full, is read as the same.
func FuzzParsePublish(f *testing.F) {
	for _, s := range []string{"80", "8080:80", "127.0.0.1::53/udp", "1.2.3.4:5:6/tcp", ":1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePublish(s)
		if err != nil {
			if p != (vm.Forward{}) {
				t.Fatalf("error %v with a value %+v", err, p)
			}
			return
		}
		host := ""
		if p.HostPort != 0 {
			host = fmt.Sprint(p.HostPort)
		}
		again, err := parsePublish(fmt.Sprintf("%s:%s:%d/%s", p.HostAddress, host, p.GuestPort, p.Protocol))
		if err != nil || again != p {
			t.Fatalf("%q: %+v, then %+v, %v", s, p, again, err)
		}
	})
}

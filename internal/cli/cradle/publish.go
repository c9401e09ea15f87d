package cradle

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/launcher/vm"
)

// parsePublish reads docker's [[IP:][HOSTPORT]:]PORT[/PROTOCOL]. Without an
// address the port is open to this machine alone; docker opens it to all.
func parsePublish(s string) (vm.Forward, error) {
	bad := func(why string) (vm.Forward, error) {
		return vm.Forward{}, fmt.Errorf("%q is not [[IP:][HOSTPORT]:]PORT[/PROTOCOL]: %s", s, why)
	}
	f := vm.Forward{HostAddress: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Protocol: "tcp"}
	ports, protocol, ok := strings.Cut(s, "/")
	if ok {
		f.Protocol = protocol
	}
	if f.Protocol != "tcp" && f.Protocol != "udp" {
		return bad(fmt.Sprintf("protocol %q is neither tcp nor udp", f.Protocol))
	}
	host, guest := "", ports
	if i := strings.LastIndex(ports, ":"); i >= 0 {
		host, guest = ports[:i], ports[i+1:]
	}
	var err error
	if f.GuestPort, err = parsePort(guest); err != nil {
		return bad(err.Error())
	}
	if i := strings.LastIndex(host, ":"); i >= 0 {
		if f.HostAddress, err = netip.ParseAddr(host[:i]); err != nil || !f.HostAddress.Is4() {
			return bad(fmt.Sprintf("%q is not an IPv4 address", host[:i]))
		}
		host = host[i+1:]
	}
	if host != "" { // else any free port
		if f.HostPort, err = parsePort(host); err != nil {
			return bad(err.Error())
		}
	}
	return f, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port from 1 to 65535", s)
	}
	return uint16(n), nil
}

package guest

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// configureNetwork gives eth0 the spec's addresses and routes. A spec without
// addresses has no network but the loopback.
func (a *agent) configureNetwork(context.Context) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("starting lo: %w", err)
	}
	n := a.spec.Network
	if len(n.Addresses) == 0 {
		return nil
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("finding eth0: %w", err)
	}
	for _, address := range n.Addresses {
		if err := netlink.AddrAdd(eth0, addr(address)); err != nil {
			return fmt.Errorf("giving eth0 the address %s: %w", address, err)
		}
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("starting eth0: %w", err)
	}
	for _, gateway := range n.Gateways {
		route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice()}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("setting the route by %s: %w", gateway, err)
		}
	}
	return nil
}

func addr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // the host could claim that every address is taken
	}
	return a
}

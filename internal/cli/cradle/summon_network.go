package cradle

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/image"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// networkFlags are summon's options for the guest's network.
type networkFlags struct {
	network  string
	ips      []string
	gateways []string
	dns      []string
	expose   []string
	vsock    uint32
}

func (f *networkFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.network, "network", "user", "user for QEMU's own, or bridge=NAME for a bridge of this machine")
	flags.StringArrayVar(&f.ips, "ip", nil, "address of the guest with its prefix length, IPv4 or IPv6; one at least on a bridge")
	flags.StringArrayVar(&f.gateways, "gateway", nil, "address of a gateway; on QEMU's network it has one")
	flags.StringArrayVar(&f.dns, "dns", nil, "address of a name server; on QEMU's network it has one")
	flags.Uint32Var(&f.vsock, "vsock", 0, "context identifier of the guest, from 3 on: where this machine has /dev/vhost-vsock, 'kattest attest vsock:CID:1' reaches the agent")
	flags.StringArrayVar(&f.expose, "expose", nil, "port on which the container serves, beside those of the image and of -p: PORT[/PROTOCOL]")
}

// apply puts what the flags ask for into spec, which has QEMU's network, and config.
func (f networkFlags) apply(spec *pod.Spec, config *vm.Config) error {
	ips, err := parseEach("--ip", f.ips, netip.ParsePrefix)
	gateways, err2 := parseEach("--gateway", f.gateways, netip.ParseAddr)
	dns, err3 := parseEach("--dns", f.dns, netip.ParseAddr)
	if err := errors.Join(err, err2, err3, f.exposed(spec)); err != nil {
		return err
	}
	config.VsockCID = f.vsock
	n := &spec.Network
	if bridge, ok := strings.CutPrefix(f.network, "bridge="); ok {
		if len(ips) == 0 {
			return errors.New("--network: on a bridge the guest's address must be given, with --ip: what a DHCP server says is not in the spec")
		}
		config.Bridge = vm.NewBridge(bridge)
		n.Addresses, n.Gateways, n.Nameservers = ips, gateways, dns
		return config.Check()
	}
	if f.network != "user" {
		return fmt.Errorf("--network: %q is neither user nor bridge=NAME", f.network)
	}
	return errors.Join(applyUser(n, ips, gateways, dns), config.Check())
}

// applyUser fits QEMU's network to the guest's addresses: one of IPv4, and one
// of IPv6 if it is given.
func applyUser(n *pod.Network, ips []netip.Prefix, gateways, dns []netip.Addr) error {
	var v4, v6 []netip.Prefix
	for _, ip := range ips {
		if ip.Addr().Is4() {
			v4 = append(v4, ip)
		} else {
			v6 = append(v6, ip)
		}
	}
	if len(v4) > 1 || len(v6) > 1 || len(gateways) > 0 {
		return errors.New("--ip, --gateway: QEMU's network has one address of IPv4 and one of IPv6, and gateways of its own")
	}
	if len(v4) > 0 {
		n.Addresses = v4
		n.Gateways = []netip.Addr{vm.Gateway(v4[0])}
		n.Nameservers = []netip.Addr{vm.Gateway(v4[0]).Next()}
	}
	if len(v6) > 0 {
		n.Addresses = append(n.Addresses, v6[0])
		n.Gateways = append(n.Gateways, vm.Gateway(v6[0]))
	}
	if len(dns) > 0 {
		n.Nameservers = dns
	}
	return nil
}

func (f networkFlags) exposed(spec *pod.Spec) error {
	var errs []error
	for _, text := range f.expose {
		number, protocol, ok := strings.Cut(text, "/")
		if !ok {
			protocol = "tcp"
		}
		p, err := parsePort(number)
		if err != nil {
			errs = append(errs, fmt.Errorf("--expose: %w", err))
			continue
		}
		spec.Ports = append(spec.Ports, pod.Port{Port: p, Protocol: protocol})
	}
	spec.Ports = image.SortPorts(spec.Ports)
	return errors.Join(errs...)
}

func parseEach[T any](flag string, texts []string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	var errs []error
	for _, text := range texts {
		one, err := parse(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
			continue
		}
		all = append(all, one)
	}
	return all, errors.Join(errs...)
}

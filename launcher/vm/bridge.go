package vm

import (
	"crypto/rand"
	"net"
	"net/netip"

	"github.com/kraudcloud/kattest/internal/lazyre"
)

// Bridge is a bridge of the host's. The guest has the addresses that its spec
// gives, and is reached at them: no port of the host leads to it.
type Bridge struct {
	Name string `json:"name"`
	MAC  string `json:"mac"` // of the guest's interface
}

// Linux' names of interfaces have 15 bytes at most; these stand on QEMU's line.
var interfaceRE = lazyre.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)

func (c Config) checkBridge(bad func(format string, args ...any)) {
	if c.Bridge == nil {
		return
	}
	if !interfaceRE().MatchString(c.Bridge.Name) {
		bad("bridge.name: %q is not an interface's name", c.Bridge.Name)
	}
	if mac, err := net.ParseMAC(c.Bridge.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() != c.Bridge.MAC {
		bad("bridge.mac: %q is not an interface's address, such as 52:54:00:12:34:56", c.Bridge.MAC)
	}
	if len(c.Forwards) > 0 {
		bad("forwards: on a bridge the guest is reached at its own address")
	}
}

// NewBridge is a guest's place on the bridge of that name, with an address of
// its own: 24 random bits in the range that QEMU uses.
func NewBridge(name string) *Bridge {
	mac := net.HardwareAddr{0x52, 0x54, 0x00, 0, 0, 0}
	_, _ = rand.Read(mac[3:]) // never fails, by its documentation
	return &Bridge{Name: name, MAC: mac.String()}
}

// Gateway is where QEMU stands on its network unless told otherwise: the
// second address of the guest's prefix.
func Gateway(guest netip.Prefix) netip.Addr { return guest.Masked().Addr().Next().Next() }

package guest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// nfsTimeout bounds the wait for a server.
const nfsTimeout = time.Minute

// mountNFS mounts an export over TCP, by NFS 4.1 alone. What is there is neither
// secret nor authentic: the server, and whoever is on the way, reads and writes it.
func (a *agent) mountNFS(ctx context.Context, m pod.Mount, dir string) error {
	source, err := pod.ParseNFSSource(m.Source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	options := nfsOptions(source.Server, a.spec.Network.Addresses)
	done := make(chan error, 1)
	go func() {
		// The kernel's client asks again for as long as no one answers.
		done <- unix.Mount(m.Source, dir, "nfs", unix.MS_NODEV|unix.MS_NOSUID, options)
	}()
	ctx, cancel := context.WithTimeout(ctx, nfsTimeout)
	defer cancel()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("mounting NFS export %s: %w", m.Source, err)
	}
	a.mounted = append(a.mounted, mounted{dir, nil})
	a.events.add(eventNFS, m.Source)
	return nil
}

// nfsOptions are what mount.nfs would give the kernel. The client waits for a
// server that is gone, as a program that is told of an error instead may lose data.
// Source: Linux 6.12, fs/nfs/fs_context.c.
func nfsOptions(server netip.Addr, own []netip.Prefix) string {
	client := netip.IPv4Unspecified()
	if server.Is6() {
		client = netip.IPv6Unspecified()
	}
	for _, p := range own {
		if p.Addr().Is4() == server.Is4() {
			client = p.Addr()
			break
		}
	}
	return fmt.Sprintf("vers=4.1,proto=%s,port=2049,sec=sys,hard,addr=%s,clientaddr=%s",
		map[bool]string{true: "tcp", false: "tcp6"}[server.Is4()], server, client)
}

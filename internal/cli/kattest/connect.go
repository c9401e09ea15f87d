package kattest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/channel"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/splice"
	"github.com/kraudcloud/kattest/verifier"
)

func newConnect() *cobra.Command {
	var f guestFlags
	var to destinations
	var locals []string
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "connect ADDR [-L [BIND:]PORT:PORT]... [--docker SOCKET --client-key KEY]",
		Short: "Lead local ports to a guest's, and docker's client to it, once it was judged",
		Long: `Challenge the guest at ADDR as attest does, and once all that is demanded holds, lead
local ports to TCP ports of its workload: -L 3306:3306 lets 'mariadb -h 127.0.0.1' talk
to the database in the guest. Each connection is one of TLS that ends at the key which
was judged; nothing passes before the verdict, nor to another key. The ports are those
that the launch spec names.

--docker SOCKET leads docker's own client to the guest by a Unix socket: DOCKER_HOST is
then unix://SOCKET. The key, a PEM file or NAME://KEY of a KMS as for unlock, must be
one that the launch spec's access names, with the operations that it allows.

The guest is judged anew with --reattest's interval, and upon SIGHUP; if it then does
not hold, all connections are closed, with attest's exit status. Ctrl-C ends it.

Standard output gets the verdict, and for each port and socket a line with its address
once it listens.`,
		Example: `  kattest connect 127.0.0.1:4711 -L 3306:3306 --release release.json --key release.pub --spec spec.json
  mariadb -h 127.0.0.1 -P 3306
  kattest connect 127.0.0.1:4711 --docker ./docker.sock --client-key me.key --release release.json --key release.pub --spec spec.json
  DOCKER_HOST=unix://$PWD/docker.sock docker exec -it db bash`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.checkTrusting(cmd, args[0]); err != nil {
				return err
			}
			var err error
			if to.forwards, err = parseForwards(locals); err != nil {
				return cli.Usage(fmt.Errorf("-L: %w", err), "want [BIND:]PORT:PORT, as ssh does")
			}
			if err := to.check(); err != nil {
				return err
			}
			if every < 0 {
				return cli.Usage(fmt.Errorf("--reattest: %v is less than nothing", every), "")
			}
			p, err := f.judge.policy(cmd)
			if err != nil {
				return err
			}
			return f.connect(cmd, args[0], to, every, p)
		},
	}
	f.register(cmd)
	cmd.Flags().StringArrayVarP(&locals, "local", "L", nil, "[BIND:]PORT:PORT: lead a local port, 0 for any free one, to a port of the guest's; may be given more than once")
	cmd.Flags().StringVar(&to.socket, "docker", "", "Unix socket on which docker's client finds the guest")
	cmd.Flags().StringVar(&to.clientKey, "client-key", "", "private key of a client that the launch spec names: PEM file, or NAME://KEY of a KMS")
	cmd.Flags().DurationVar(&every, "reattest", 0, "judge the guest anew after that time, and so on")
	return cmd
}

// destinations are where connections lead, and from where.
type destinations struct {
	forwards  []forward
	socket    string // of docker's API, or empty
	clientKey string
}

func (d destinations) check() error {
	switch {
	case len(d.forwards) == 0 && d.socket == "":
		return cli.Usage(errors.New("neither -L nor --docker: there is nothing to connect"), "see 'kattest connect --help'")
	case (d.socket == "") != (d.clientKey == ""):
		return cli.Usage(errors.New("--docker and --client-key go together"), "the guest serves docker's API to keys that its launch spec names")
	}
	return nil
}

// forward leads from a local address to a port of the guest's.
type forward struct {
	local string
	port  uint16
}

// parseForwards reads [BIND:]PORT:PORT, an IPv6 address in brackets.
func parseForwards(texts []string) ([]forward, error) {
	var all []forward
	for _, text := range texts {
		i := strings.LastIndexByte(text, ':')
		if i < 0 {
			return nil, fmt.Errorf("%q has no colon", text)
		}
		local, remote := text[:i], text[i+1:]
		n, err := strconv.ParseUint(remote, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q: %q is not a port", text, remote)
		}
		if !strings.Contains(local, ":") {
			local = "127.0.0.1:" + local
		}
		_, number, err := net.SplitHostPort(local)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		if _, err := strconv.ParseUint(number, 10, 16); err != nil {
			return nil, fmt.Errorf("%q: %q is not a port", text, number)
		}
		all = append(all, forward{local, uint16(n)})
	}
	return all, nil
}

// connect judges, listens, and goes on until it is stopped or the guest no longer
// holds.
func (f *guestFlags) connect(cmd *cobra.Command, addr string, to destinations, every time.Duration, p verifier.Policy) error {
	// Before any line that says that it listens: who reads it may send the signal.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	var client *tls.Certificate
	if to.clientKey != "" {
		var err error
		if client, err = openClient(cmd.Context(), to.clientKey); err != nil {
			return err
		}
	}
	guest, err := f.attest(cmd, addr, p)
	if err != nil {
		return err
	}
	guest.conn.Close()
	ctx, cancel := context.WithCancel(cmd.Context())
	t := &tunnels{ctx: ctx, addr: addr, key: guest.key, client: client, stderr: cmd.ErrOrStderr()}
	defer t.running.Wait()
	defer cancel()
	for _, forward := range to.forwards {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", forward.local)
		if err != nil {
			return cli.Usage(fmt.Errorf("-L: %w", err), "")
		}
		context.AfterFunc(ctx, func() { l.Close() })
		what := fmt.Sprintf("port %d", forward.port)
		t.running.Go(func() { t.accept(l, what, func(conn net.Conn) error { return t.lead(conn, forward.port) }) })
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "listening on %s for port %d\n", l.Addr(), forward.port); err != nil {
			return err
		}
	}
	if to.socket != "" {
		if err := t.listenDocker(to.socket); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "listening on %s for docker\n", to.socket); err != nil {
			return err
		}
	}
	return f.hold(cmd, addr, guest.key, hangup, every, p)
}

// hold judges the guest anew when it is time, and returns when it does not hold, or
// the command is stopped.
func (f *guestFlags) hold(cmd *cobra.Command, addr string, key []byte, hangup <-chan os.Signal, every time.Duration, p verifier.Policy) error {
	var tick <-chan time.Time
	if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-cmd.Context().Done():
			return nil
		case <-hangup:
		case <-tick:
		}
		now := p
		if f.judge.at == "" {
			now.Time = time.Now()
		}
		guest, err := f.attest(cmd, addr, now)
		if err != nil {
			return err
		}
		guest.conn.Close()
		if !bytes.Equal(guest.key, key) {
			return &cli.Error{Code: cli.ExitSignature, Err: errors.New("another guest answers, with another key"), Hint: "it was started anew: connect to it again"}
		}
	}
}

// tunnels lead to one guest, by the key that was judged.
type tunnels struct {
	ctx     context.Context //nolint:containedctx // that of the command
	addr    string
	key     []byte
	client  *tls.Certificate // nil for a stranger
	running sync.WaitGroup
	mu      sync.Mutex
	stderr  io.Writer
}

// accept leads each connection that comes.
func (t *tunnels) accept(l net.Listener, what string, lead func(net.Conn) error) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if t.ctx.Err() == nil {
				t.warn(err)
			}
			return
		}
		t.running.Go(func() {
			defer conn.Close()
			if err := lead(conn); err != nil && t.ctx.Err() == nil {
				t.warn(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
}

func (t *tunnels) warn(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.stderr, "kattest: warning: %v\n", err)
}

// dialTimeout bounds the way to the guest.
const dialTimeout = 30 * time.Second

var errOtherKey = errors.New("the guest has another key than the one that was judged: nothing was sent; connect again")

// lead joins a local connection with the guest's port.
func (t *tunnels) lead(local net.Conn, to uint16) error {
	ctx, cancel := context.WithTimeout(t.ctx, dialTimeout)
	defer cancel()
	conn, err := channel.Dial(ctx, t.addr, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if !bytes.Equal(conn.Key(), t.key) {
		return errOtherKey
	}
	remote, err := conn.Upgrade(ctx, port.TunnelPath+strconv.Itoa(int(to)), port.TunnelProtocol)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(t.ctx, func() {
		local.Close()
		remote.Close()
	})
	defer stop()
	splice.Join(local, remote)
	return nil
}

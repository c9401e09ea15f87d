// Command peers runs other programs that compute launch digests beside our code,
// over random launches within what all should agree on, and stops at the first
// that differs. It neither fetches nor builds them, and it does not try what the
// peers are known to do wrong: that is in measure/testdata/peers.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
)

func main() { os.Exit(cli.Main(newPeers(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// options are the command line.
type options struct {
	commands map[string]*string // by the peer's name
	seed     uint64
	first, n int
	kattest  string
	timed    bool
}

func newPeers() *cobra.Command {
	o := options{commands: map[string]*string{}}
	cmd := &cobra.Command{
		Use:   "peers [--python CMD] [--rust CMD] [--go CMD] [--gce CMD]",
		Short: "Compare launch digests with other programs'",
		Long: `Peers makes random launches, has each peer that knows such a launch compute its
digest, and compares it with ours. Of the first that differs it prints seed and
number, so that it can be repeated, and keeps the files; exit status 5.

A peer is a command that takes sev-snp-measure's flags, each as --NAME=VALUE,
and prints the digest in hexadecimal on standard output. docs/equivalence.md
says which flags.

--time compares the CPU time of the process 'kattest measure' with that of the
Python peer over 4 MiB of firmware, 12 MB of kernel and 40 MB of initrd, and with
hashing these bytes alone; exit status 5 if their digests differ.`,
		Example: `  scripts/peers --python 'python3 sev-snp-measure.py' --n 5000
  scripts/peers --rust ./rust-measure --seed 7 --first 1234 --n 1
  scripts/peers --python 'python3 sev-snp-measure.py' --time`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	flags := cmd.Flags()
	for _, p := range peerNames() {
		o.commands[p] = flags.String(p, "", "command of the "+p+" peer, split at spaces")
	}
	flags.Uint64Var(&o.seed, "seed", 1, "which random launches")
	flags.IntVar(&o.first, "first", 0, "number of the first launch")
	flags.IntVar(&o.n, "n", 1000, "how many launches")
	flags.BoolVar(&o.timed, "time", false, "compare CPU time with the Python peer's")
	flags.StringVar(&o.kattest, "kattest", "kattest", "our command, for --time")
	return cmd
}

func (o options) run(cmd *cobra.Command) error {
	commands := map[string][]string{}
	for name, c := range o.commands {
		if fields := strings.Fields(*c); len(fields) > 0 {
			commands[name] = fields
		}
	}
	if len(commands) == 0 {
		return cli.Usage(fmt.Errorf("no peer is named"), "see 'scripts/peers --help'")
	}
	if o.first < 0 || o.n < 1 {
		return cli.Usage(fmt.Errorf("--first %d and --n %d: want at least 0 and 1", o.first, o.n), "")
	}
	dir, err := os.MkdirTemp("", "kattest-peers-")
	if err != nil {
		return err
	}
	if o.timed {
		defer os.RemoveAll(dir)
		return compareTimes(cmd, dir, o.kattest, commands["python"])
	}
	c := comparison{dir: dir, commands: commands, runs: map[string]int{}}
	for i := o.first; i < o.first+o.n; i++ {
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		different, err := c.compare(cmd.Context(), newLaunch(o.seed, i))
		if err != nil {
			return err
		}
		if different != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "%sfiles: %s\nrepeat with: --seed %d --first %d --n 1\n", different, dir, o.seed, i)
			return &cli.Silent{Code: cli.ExitMismatch}
		}
	}
	c.summary(cmd.OutOrStdout(), o)
	return os.RemoveAll(dir)
}

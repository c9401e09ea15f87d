package cradle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/image"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/measure/stack"
)

// summonMediaType names this version of summon's JSON.
const summonMediaType = "application/vnd.kattest.summon.v1+json"

// summoned is summon's answer.
type summoned struct {
	MediaType   string         `json:"mediaType"`
	Folder      string         `json:"folder"`
	Image       string         `json:"image"` // the manifest's digest
	RootHash    pod.Hash       `json:"rootHash"`
	HostData    pod.Hash       `json:"hostData"`
	Measurement measure.Digest `json:"measurement"`
	VCPUs       int            `json:"vcpus"`
	CPU         string         `json:"cpu"`

	IDKeyDigest     *idblock.KeyDigest `json:"idKeyDigest,omitempty"`
	AuthorKeyDigest *idblock.KeyDigest `json:"authorKeyDigest,omitempty"`
}

// summonFlags are the options, as they stand on the command line.
type summonFlags struct {
	env, envFiles, publish []string
	capAdd, capDrop        []string
	entrypoint             string
	hostname, user         string
	workdir, stopSignal    string
	console                string
	agent                  string
	stack                  string
	output                 string
	memory                 string
	vcpus                  int
	cpu                    string
	id                     idFlags
	storage                storageFlags
	process                processFlags
	supervise              superviseFlags
	owner                  ownerFlags
	cache                  cacheFlags
	network                networkFlags
}

func newSummon() *cobra.Command {
	defaults := vm.DefaultConfig()
	f := summonFlags{}
	cmd := &cobra.Command{
		Use:   "summon [OPTIONS] DIR IMAGE [ARG...]",
		Short: "Make a guest's folder from a container image",
		Long: `Make the folder DIR from which 'cradle-snp run' starts a guest: the launch spec,
the image's file system with its dm-verity tree, and links to the boot stack.

IMAGE is an OCI image layout or a docker-archive (DIR or FILE, with :TAG or
@DIGEST to choose), or an image in a registry. What follows IMAGE takes the
place of the image's command, as with docker run.`,
		Example: `  cradle-snp summon db mariadb --max-connections=50
  cradle-snp summon -e MARIADB_ROOT_PASSWORD -p 3306:3306 db ./mariadb-image`,
		Args:                  cli.Args(cobra.MinimumNArgs(2)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.HasPrefix(args[1], "-") { // options may also stand behind DIR
				if err := cmd.ParseFlags(args[1:]); err != nil {
					return cli.Usage(err, "see 'cradle-snp summon --help'")
				}
				args = append(args[:1:1], cmd.Flags().Args()...)
				if len(args) < 2 {
					return cli.Usage(errors.New("IMAGE is missing"), "see 'cradle-snp summon --help'")
				}
			}
			return summon(cmd, f, args)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows IMAGE is the container's
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment entry NAME=VALUE; NAME alone takes this process's value")
	flags.StringArrayVar(&f.envFiles, "env-file", nil, "file of environment entries, one a line")
	flags.StringArrayVarP(&f.publish, "publish", "p", nil, "lead a port of the host to the guest: [[IP:][HOSTPORT]:]PORT[/PROTOCOL]; IP is 127.0.0.1 unless given")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "program in place of the image's entrypoint and command")
	flags.StringVar(&f.hostname, "hostname", "cradle", "host name in the guest")
	flags.StringVarP(&f.user, "user", "u", "", "user[:group] in place of the image's")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "working directory in place of the image's")
	flags.StringVar(&f.stopSignal, "stop-signal", "", "signal that stops the container, in place of the image's")
	flags.StringSliceVar(&f.capAdd, "cap-add", nil, "add a Linux capability")
	flags.StringSliceVar(&f.capDrop, "cap-drop", nil, "drop a Linux capability, or ALL")
	flags.StringVar(&f.console, "console", string(pod.ConsoleNone), "what of the container's output the host may read: none or output")
	flags.IntVar(&f.vcpus, "vcpus", defaults.VCPUs, "number of vCPUs")
	flags.StringVar(&f.cpu, "cpu", defaults.CPU, "CPU model")
	flags.StringVar(&f.memory, "memory", fmt.Sprintf("%dM", defaults.MemoryMiB), "memory, in MiB (M) or GiB (G)")
	flags.StringVar(&f.agent, "agent", defaults.Agent.String(), "address on this machine that leads to the agent; port 0 is any free one")
	flags.StringVar(&f.stack, "stack", "", "folder of the boot stack (default $KATTEST_STACK, else kattest/stack in the user's data folder)")
	f.storage.add(flags)
	f.process.add(flags)
	f.supervise.add(flags)
	f.owner.add(flags)
	f.cache.add(flags)
	f.network.add(flags)
	f.id.add(flags)
	flags.StringVar(&f.output, "output", "text", "form of the answer: text or json")
	return cmd
}

func summon(cmd *cobra.Command, f summonFlags, args []string) error {
	dir, reference, rest := args[0], args[1], args[2:]
	if f.output != "text" && f.output != "json" {
		return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", f.output), "")
	}
	config, err := f.config()
	if err != nil {
		return cli.Usage(err, "see 'cradle-snp summon --help'")
	}
	if config.IDBlock, err = f.id.read(); err != nil {
		return err
	}
	overrides, err := f.overrides(rest)
	if err != nil {
		return cli.Usage(err, "see 'cradle-snp summon --help'")
	}
	if cmd.Flags().Changed("entrypoint") {
		overrides.Entrypoint = &f.entrypoint
	}
	stackDir := stackFolder(f.stack)
	bootStack, fw, err := stack.LoadFirmware(stackDir)
	if err != nil {
		return cli.Usage(err, "build a boot stack with 'kattest build --out DIR' and name it with --stack DIR")
	}
	measurement, err := config.Measure(bootStack, fw)
	if err != nil {
		return cli.Usage(err, "")
	}
	if config.IDBlock != nil {
		policy, err := launcher.PolicyOf(config.IDBlock)
		if err != nil {
			return idBlockError(err)
		}
		if err := config.IDBlock.Block.Match(measurement, policy); err != nil {
			return idBlockError(fmt.Errorf("the firmware would refuse this launch: %w", err))
		}
	}
	if err := vm.CheckVacant(dir); err != nil {
		return cli.Usage(err, "choose another folder, or remove this one")
	}
	img, err := image.Open(cmd.Context(), reference)
	if err != nil {
		return imageError(err)
	}
	spec, err := f.spec(img, overrides, &config)
	if err != nil {
		return cli.Usage(err, "")
	}
	cache, err := f.cache.open()
	if err != nil {
		return cli.Usage(err, "name another folder with --cache, or none with --cache ''")
	}
	progress := newProgress(cmd.ErrOrStderr())
	err = vm.Create(dir, config, stackDir, func(root *os.File) (pod.Spec, error) {
		v, err := img.Convert(cmd.Context(), root, image.Options{Progress: progress.report, Cache: cache})
		spec.Image.Verity = v
		return spec, err
	})
	progress.close(err)
	if err != nil {
		return imageError(err)
	}
	noteVM(cmd.ErrOrStderr(), dir)
	return answer(cmd.OutOrStdout(), f.output, dir, measurement)
}

// imageError gives an error of an image its exit code.
func imageError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, image.ErrUnavailable):
		return &cli.Error{Code: cli.ExitUnavailable, Err: err, Hint: "an OCI layout or docker-archive needs no network: summon DIR ./PATH"}
	case errors.Is(err, image.ErrNoSpace):
		return err
	}
	return cli.Usage(err, "")
}

// config is the machine that the flags ask for.
func (f summonFlags) config() (vm.Config, error) {
	c := vm.DefaultConfig()
	c.VCPUs, c.CPU = f.vcpus, f.cpu
	var errs []error
	var err error
	if c.MemoryMiB, err = parseMemory(f.memory); err != nil {
		errs = append(errs, fmt.Errorf("--memory: %w", err))
	}
	if c.Agent, err = netip.ParseAddrPort(f.agent); err != nil {
		errs = append(errs, fmt.Errorf("--agent: %w", err))
	}
	for _, p := range f.publish {
		forward, err := parsePublish(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("--publish: %w", err))
			continue
		}
		c.Forwards = append(c.Forwards, forward)
	}
	if err := errors.Join(errs...); err != nil {
		return vm.Config{}, err
	}
	return c, c.Check()
}

// parseMemory reads a size in MiB (also with M or m) or GiB (G or g).
func parseMemory(s string) (int, error) {
	unit := 1
	number := strings.TrimRight(s, "GgMm")
	switch strings.ToUpper(s[len(number):]) {
	case "", "M":
	case "G":
		unit = 1024
	default:
		number = ""
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > vm.MaxMemoryMiB {
		return 0, fmt.Errorf("%q is not a size such as 2048M or 2G", s)
	}
	return n * unit, nil
}

func (f summonFlags) overrides(args []string) (image.Overrides, error) {
	o := image.Overrides{
		Args: args, Hostname: f.hostname, User: f.user, WorkingDir: f.workdir,
		StopSignal: f.stopSignal, CapAdd: f.capAdd, CapDrop: f.capDrop,
	}
	for _, name := range f.envFiles {
		data, err := os.ReadFile(name)
		if err != nil {
			return image.Overrides{}, fmt.Errorf("--env-file: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimRight(strings.TrimLeft(line, " \t"), "\r\n")
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if err := addEnv(&o, line); err != nil {
				return image.Overrides{}, fmt.Errorf("--env-file %s: %w", name, err)
			}
		}
	}
	for _, entry := range f.env {
		if err := addEnv(&o, entry); err != nil {
			return image.Overrides{}, fmt.Errorf("--env: %w", err)
		}
	}
	return o, nil
}

// addEnv reads NAME=VALUE, or NAME for the value that it has here; a NAME that
// has none is taken out, as docker does.
func addEnv(o *image.Overrides, entry string) error {
	name, value, ok := strings.Cut(entry, "=")
	if name == "" {
		return fmt.Errorf("%q is not NAME=VALUE or NAME", entry)
	}
	if !ok {
		value, ok = os.LookupEnv(name)
	}
	o.Env = append(o.Env, image.EnvVar{Name: name, Value: value, Unset: !ok})
	return nil
}

// spec is the launch spec, but for the root hash. What it needs of the host
// goes into config.
func (f summonFlags) spec(img *image.Image, o image.Overrides, config *vm.Config) (pod.Spec, error) {
	process, err := img.Process(o)
	if err != nil {
		return pod.Spec{}, err
	}
	ports, err := img.Ports()
	if err != nil {
		return pod.Spec{}, err
	}
	for _, forward := range config.Forwards {
		ports = append(ports, pod.Port{Port: forward.GuestPort, Protocol: forward.Protocol})
	}
	spec := pod.Spec{
		MediaType: pod.MediaType,
		Image:     pod.Image{Reference: img.Reference, Digest: img.Digest.String()},
		Process:   process,
		Network:   userNetwork(f.hostname),
		Ports:     image.SortPorts(ports),
		Console:   pod.Console(f.console),
	}
	if err := errors.Join(f.network.apply(&spec, config), f.process.apply(&spec), f.supervise.apply(&spec, img), f.storage.apply(&spec, config), f.owner.apply(&spec)); err != nil {
		return pod.Spec{}, err
	}
	// The rest is checked before the image's bytes are fetched.
	whole := spec
	whole.Image.Verity = pod.Verity{RootHash: pod.Hash{1}, DataBlocks: 1}
	return spec, whole.Check()
}

// userNetwork is QEMU's user network.
// Source: QEMU 10.0, qemu-options.hx, -netdev user.
func userNetwork(hostname string) pod.Network {
	return pod.Network{
		Hostname:    hostname,
		Addresses:   []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24")},
		Gateways:    []netip.Addr{netip.MustParseAddr("10.0.2.2")},
		Nameservers: []netip.Addr{netip.MustParseAddr("10.0.2.3")},
	}
}

// stackFolder is where the boot stack is, unless a flag says so.
func stackFolder(flag string) string {
	if flag != "" {
		return flag
	}
	if dir := os.Getenv("KATTEST_STACK"); dir != "" {
		return dir
	}
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) {
		home, _ := os.UserHomeDir() // without one the path will not exist, and the error names it
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "kattest", "stack")
}

// answer prints what was made.
func answer(w io.Writer, output, dir string, measurement measure.Digest) error {
	v, err := vm.Open(dir)
	if err != nil {
		return err
	}
	hostData, err := v.Spec.HostData()
	if err != nil {
		return err
	}
	s := summoned{
		MediaType:   summonMediaType,
		Folder:      dir,
		Image:       v.Spec.Image.Digest,
		RootHash:    v.Spec.Image.Verity.RootHash,
		HostData:    hostData,
		Measurement: measurement,
		VCPUs:       v.Config.VCPUs,
		CPU:         v.Config.CPU,
	}
	if id := v.Config.IDBlock; id != nil {
		s.IDKeyDigest = new(id.Auth.IDKey.Digest())
		if id.Auth.HasAuthor() {
			s.AuthorKeyDigest = new(id.Auth.AuthorKey.Digest())
		}
	}
	if output == "json" {
		b, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := [][2]string{
		{"folder", s.Folder},
		{"image", s.Image},
		{"root hash", s.RootHash.String()},
		{"shape", fmt.Sprintf("%d x %s", s.VCPUs, s.CPU)},
		{"HOST_DATA", s.HostData.String()},
		{"MEASUREMENT", s.Measurement.String()},
	}
	if s.IDKeyDigest != nil {
		rows = append(rows, [2]string{"ID_KEY_DIGEST", s.IDKeyDigest.String()})
	}
	if s.AuthorKeyDigest != nil {
		rows = append(rows, [2]string{"AUTHOR_KEY_DIGEST", s.AuthorKeyDigest.String()})
	}
	for _, row := range rows {
		fmt.Fprintf(tw, "%s\t%s\n", row[0], row[1])
	}
	return tw.Flush()
}

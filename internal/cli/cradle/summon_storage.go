package cradle

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// storageFlags are summon's options for what the container writes to.
type storageFlags struct {
	mounts  []string
	tmpfs   []string
	shmSize string
	scratch string
}

func (f *storageFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.mounts, "mount", nil, `mount something in the container, as KEY=VALUE,…:
type=volume,source=NAME,target=PATH,size=SIZE,key=SECRET[,file=FILE][,readonly]
type=nfs,source=ADDRESS:/PATH,target=PATH[,readonly] (neither secret nor authentic)
type=tmpfs,target=PATH[,tmpfs-size=SIZE][,tmpfs-mode=MODE][,readonly]`)
	flags.StringArrayVar(&f.tmpfs, "tmpfs", nil, "mount a tmpfs: PATH[:OPTION,...] with size=SIZE, mode=MODE, ro")
	flags.StringVar(&f.shmSize, "shm-size", "", "size of /dev/shm (default 64m)")
	flags.StringVar(&f.scratch, "scratch", "", "keep the container's writable layer on an encrypted disk of SIZE in place of memory")
}

// apply puts what the flags ask for into spec and config.
func (f storageFlags) apply(spec *pod.Spec, config *vm.Config) error {
	var errs []error
	for _, text := range f.mounts {
		m, file, err := parseMount(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--mount %q: %w", text, err))
			continue
		}
		spec.Mounts = append(spec.Mounts, m)
		if m.Type == pod.MountVolume {
			config.Volumes = append(config.Volumes, vm.Volume{Name: m.Name, File: file})
		}
	}
	for _, text := range f.tmpfs {
		m, err := parseTmpfs(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--tmpfs %q: %w", text, err))
			continue
		}
		spec.Mounts = append(spec.Mounts, m)
	}
	if f.shmSize != "" {
		size, err := parseSize(f.shmSize)
		if err != nil {
			errs = append(errs, fmt.Errorf("--shm-size: %w", err))
		}
		spec.Mounts = append(spec.Mounts, pod.Mount{Type: pod.MountTmpfs, Target: "/dev/shm", Size: size})
	}
	if f.scratch != "" {
		size, err := parseSize(f.scratch)
		if err != nil {
			errs = append(errs, fmt.Errorf("--scratch: %w", err))
		}
		spec.Scratch = &pod.Scratch{Size: size}
	}
	return errors.Join(errs...)
}

// parseMount reads what docker's --mount takes, where it means the same, and a
// volume's size, key and file. The file is where its disk is.
func parseMount(text string) (m pod.Mount, file string, err error) {
	source := ""
	seen := map[string]bool{}
	for field := range strings.SplitSeq(text, ",") {
		key, value, hasValue := strings.Cut(field, "=")
		key = mountKey(key)
		if seen[key] {
			return pod.Mount{}, "", fmt.Errorf("%s stands twice", key)
		}
		seen[key] = true
		switch key {
		case "type":
			m.Type = pod.MountType(value)
		case "source":
			source = value
		case "target":
			m.Target = value
		case "readonly":
			if m.ReadOnly = true; hasValue {
				if m.ReadOnly, err = strconv.ParseBool(value); err != nil {
					return pod.Mount{}, "", fmt.Errorf("readonly: %q is neither true nor false", value)
				}
			}
		case "size":
			if m.Size, err = parseSize(value); err != nil {
				return pod.Mount{}, "", err
			}
		case "mode":
			if m.Mode, err = parseMode(value); err != nil {
				return pod.Mount{}, "", err
			}
		case "key":
			m.Key = value
		case "file":
			if file, err = filepath.Abs(value); err != nil {
				return pod.Mount{}, "", err
			}
		default:
			return pod.Mount{}, "", fmt.Errorf("unknown key %q", key)
		}
	}
	switch m.Type {
	case pod.MountVolume:
		m.Name = source
		if file == "" {
			file = filepath.Join("volumes", m.Name+".img")
		}
	case pod.MountNFS:
		m.Source = source
	case pod.MountTmpfs:
		if source != "" {
			return pod.Mount{}, "", errors.New("source means nothing for a tmpfs")
		}
	case "bind":
		return pod.Mount{}, "", errors.New("a guest sees no folder of the host's: put files into the image, or use a volume")
	}
	if seen["file"] && m.Type != pod.MountVolume {
		return pod.Mount{}, "", errors.New("file is a volume's")
	}
	return m, file, nil
}

// parseTmpfs reads PATH[:OPTION,...] as docker does.
func parseTmpfs(text string) (pod.Mount, error) {
	target, options, _ := strings.Cut(text, ":")
	m := pod.Mount{Type: pod.MountTmpfs, Target: target}
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "", "rw", "nosuid", "nodev", "noexec": // as it is in any case
		case "ro":
			m.ReadOnly = true
		case "size":
			m.Size, err = parseSize(value)
		case "mode":
			m.Mode, err = parseMode(value)
		default:
			err = fmt.Errorf("option %q is none of size, mode, ro, rw, nosuid, nodev, noexec", option)
		}
		if err != nil {
			return pod.Mount{}, err
		}
	}
	return m, nil
}

// parseMode reads a mode as octal digits, as many as there are.
func parseMode(s string) (string, error) {
	mode, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return "", fmt.Errorf("mode: %q is not an octal number up to 7777", s)
	}
	return fmt.Sprintf("%04o", mode), nil
}

// mountKey is the one name that a key of --mount has here.
func mountKey(key string) string {
	switch key {
	case "src":
		return "source"
	case "dst", "destination":
		return "target"
	case "ro":
		return "readonly"
	case "tmpfs-size":
		return "size"
	case "tmpfs-mode":
		return "mode"
	}
	return key
}

// parseSize reads a number of bytes, also with k, m, g or t for their powers of
// 1024, as docker does.
func parseSize(s string) (uint64, error) {
	number := strings.TrimSuffix(strings.ToLower(s), "b")
	shift := 0
	for i, unit := range []string{"k", "m", "g", "t"} {
		if rest, ok := strings.CutSuffix(number, unit); ok {
			number, shift = rest, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n == 0 || n > pod.MaxDiskSize>>shift {
		return 0, fmt.Errorf("%q is not a size such as 512m or 10g", s)
	}
	return n << shift, nil
}

package cradle

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/cli/pemkey"
)

// ownerFlags are summon's options for who may ask the guest for something, and what
// it waits for.
type ownerFlags struct {
	owners, secrets, clients []string
}

func (f *ownerFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.owners, "owner", nil, "public key, PEM, of an owner who hands over the secrets; may be given more than once")
	flags.StringArrayVar(&f.secrets, "secret", nil, `secret that the guest waits for before it starts the container, as
NAME[,target=PATH][,env=VARIABLE][,mode=MODE][,uid=N][,gid=N]; a file /run/secrets/NAME
unless target or env say otherwise. Volumes' keys need no --secret`)
	flags.StringArrayVar(&f.clients, "client", nil, "public key, PEM, of a client of the docker API in the guest: FILE[=ps,logs,…], every operation unless some are named; may be given more than once")
}

// apply puts what the flags ask for into the spec, whose volumes are there already.
func (f ownerFlags) apply(spec *pod.Spec) error {
	var errs []error
	for _, text := range f.clients {
		a, err := parseClient(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--client %q: %w", text, err))
		}
		spec.Access = append(spec.Access, a)
	}
	s := &pod.Secrets{}
	for _, file := range f.owners {
		key, err := keyDigest(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("--owner: %w", err))
		}
		s.Owners = append(s.Owners, key)
	}
	for _, text := range f.secrets {
		one, err := parseSecret(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--secret %q: %w", text, err))
		}
		s.Expects = append(s.Expects, one)
	}
	for _, m := range spec.Volumes() {
		if !slices.ContainsFunc(s.Expects, func(e pod.Secret) bool { return e.Name == m.Key }) {
			s.Expects = append(s.Expects, pod.Secret{Name: m.Key})
		}
	}
	switch {
	case len(s.Expects) > 0 && len(s.Owners) == 0:
		errs = append(errs, errors.New("--owner: missing: somebody has to hand over the secrets and volumes' keys"))
	case len(s.Expects) == 0 && len(s.Owners) > 0:
		errs = append(errs, errors.New("--owner without --secret or a volume: there is nothing to hand over"))
	case len(s.Expects) > 0:
		spec.Secrets = s
	}
	return errors.Join(errs...)
}

// parseSecret reads NAME and what docker's --secret takes of a service, where it
// means the same.
func parseSecret(text string) (pod.Secret, error) {
	fields := strings.Split(text, ",")
	s := pod.Secret{Name: fields[0]}
	seen := map[string]bool{}
	for _, field := range fields[1:] {
		key, value, ok := strings.Cut(field, "=")
		if !ok || seen[key] {
			return pod.Secret{}, fmt.Errorf("%q is not KEY=VALUE, or stands twice", field)
		}
		seen[key] = true
		switch key {
		case "target":
			s.File = value
			if !strings.HasPrefix(value, "/") {
				s.File = "/run/secrets/" + value
			}
		case "env":
			s.Env = value
		case "mode":
			mode, err := strconv.ParseUint(value, 8, 12)
			if err != nil {
				return pod.Secret{}, fmt.Errorf("mode: %q is not an octal number up to 7777", value)
			}
			s.Mode = fmt.Sprintf("%04o", mode)
		case "uid", "gid":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return pod.Secret{}, fmt.Errorf("%s: %q is not a number up to 2^32-1", key, value)
			}
			if key == "uid" {
				s.UID = uint32(n)
			} else {
				s.GID = uint32(n)
			}
		default:
			return pod.Secret{}, fmt.Errorf("unknown key %q", key)
		}
	}
	if s.File == "" && s.Env == "" {
		s.File = "/run/secrets/" + s.Name
	}
	return s, nil
}

// parseClient reads FILE[=OPERATION,…], the operations with or without "docker.".
func parseClient(text string) (pod.Access, error) {
	file, list, some := strings.Cut(text, "=")
	key, err := keyDigest(file)
	if err != nil {
		return pod.Access{}, err
	}
	a := pod.Access{Key: key, Allow: slices.Clone(pod.Operations)}
	if !some {
		return a, nil
	}
	a.Allow = nil
	for name := range strings.SplitSeq(list, ",") {
		a.Allow = append(a.Allow, pod.Operation("docker."+strings.TrimPrefix(name, "docker.")))
	}
	return a, nil
}

// keyDigest reads a public key, and returns by what a launch spec knows it.
func keyDigest(file string) (pod.Hash, error) {
	key, err := pemkey.ReadPublic(file)
	if err != nil {
		return pod.Hash{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return pod.Hash{}, fmt.Errorf("%s: %w", file, err)
	}
	return sha256.Sum256(der), nil
}

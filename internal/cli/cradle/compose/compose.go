// Package compose reads a compose file as guests, one a service: each comes to the
// options and arguments of 'cradle-snp summon' that make it. What a guest cannot
// have, or summon has no option for, is an error that names the key. The keys are
// listed in docs/compose.md.
//
// It reads the compose file and the files that this names, and nothing else: it
// opens no image, and does not check the values that summon checks.
package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"
)

// Project is a compose file.
type Project struct {
	Name     string
	Dir      string    // the folder of the file
	Services []Service // each after those that it depends on
}

// Service is one guest.
type Service struct {
	Name      string // of the service
	Guest     string // of the guest: container_name, else PROJECT-SERVICE
	Options   []string
	Image     string
	Args      []string // what follows the image
	DependsOn []Dependency
}

// Dependency is a service that another one waits for.
type Dependency struct {
	Service string
	// What is waited for beyond its start; neither, or one.
	Completed bool // its end with exit status 0
	Healthy   bool // that its healthcheck says so
}

// Options say how to read.
type Options struct {
	File string
	Name string // of the project, in place of the file's or its folder's
	// Has says whether summon has an option, and whether it takes a value.
	Has func(option string) bool
	// Lenient reads names and order alone, as down needs them.
	Lenient bool
}

// Load reads a compose file. Variables come from this process's environment, and
// from a file .env beside it.
func Load(ctx context.Context, o Options) (Project, error) {
	var unsupported []loader.UnsupportedAttribute
	load := []func(*loader.Options){func(l *loader.Options) { l.SkipNormalization = true }}
	if !o.Lenient {
		load = append(load, loader.WithSupportedAttributes(supported(o.Has), func(found []loader.UnsupportedAttribute) { unsupported = found }))
	}
	given := []cli.ProjectOptionsFn{cli.WithWorkingDirectory(filepath.Dir(o.File)), cli.WithOsEnv, cli.WithEnvFiles(), cli.WithDotEnv, cli.WithLoadOptions(load...)}
	if o.Name != "" {
		given = append(given, cli.WithName(o.Name))
	}
	options, err := cli.NewProjectOptions([]string{o.File}, given...)
	if err != nil {
		return Project{}, err
	}
	p, err := options.LoadProject(ctx)
	if err != nil {
		return Project{}, err
	}
	var errs []error
	for _, u := range unsupported {
		errs = append(errs, fmt.Errorf("%s: not supported", u.Path))
	}
	services, err := translate(p, o)
	if err := errors.Join(append(errs, err)...); err != nil {
		return Project{}, err
	}
	return Project{Name: p.Name, Dir: p.WorkingDir, Services: inOrder(services)}, nil
}

// supported are the keys that may stand in the file.
func supported(has func(string) bool) []tree.Path {
	keys := []string{
		"name", "version", "services.*.image", "services.*.command", "services.*.entrypoint", "services.*.container_name",
		"services.*.platform", "services.*.profiles.**", "services.*.deploy.replicas", "services.*.scale",
		"services.*.depends_on.*.condition", "services.*.depends_on.*.required", "services.*.attach",
	}
	if has("secret") {
		keys = append(keys, "secrets.*.external", "secrets.*.name")
		for _, key := range []string{"source", "target", "uid", "gid", "mode"} {
			keys = append(keys, "services.*.secrets.[]."+key)
		}
	}
	for _, m := range mappings() {
		if has(m.option) {
			for _, key := range m.keys {
				keys = append(keys, "services.*."+key)
			}
		}
	}
	var paths []tree.Path
	for _, key := range keys {
		base, below := strings.CutSuffix(key, ".**") // and all that is below it
		paths = append(paths, tree.Path(base))
		if below {
			for _, suffix := range []string{".*", ".*.*", ".[].*"} {
				paths = append(paths, tree.Path(base+suffix))
			}
		}
	}
	return paths
}

func translate(p *types.Project, o Options) ([]Service, error) {
	guestName := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	var services []Service
	var errs []error
	guests := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		config := p.Services[name]
		s := Service{Name: name, Guest: config.ContainerName}
		if s.Guest == "" {
			s.Guest = p.Name + "-" + name
		}
		if !guestName.MatchString(s.Guest) { // it names a folder
			errs = append(errs, fmt.Errorf("services.%s.container_name: %q is no name of letters, digits, '_', '.' and '-'", name, s.Guest))
		}
		if other, taken := guests[s.Guest]; taken {
			errs = append(errs, fmt.Errorf("services.%s.container_name: %q is that of services.%s", name, s.Guest, other))
		}
		guests[s.Guest] = name
		err := s.fill(p, config, o)
		if !o.Lenient {
			errs = append(errs, err)
		}
		services = append(services, s)
	}
	if len(services) == 0 {
		errs = append(errs, errors.New("services: none"))
	}
	return services, errors.Join(errs...)
}

// fill translates a service, and reports everything that is wrong with it.
func (s *Service) fill(p *types.Project, c types.ServiceConfig, o Options) error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("services.%s.%s: %w", s.Name, key, fmt.Errorf(format, args...)))
	}
	switch {
	case c.Image == "":
		bad("image", "missing: a guest is made from an image, and not built")
	case strings.HasPrefix(c.Image, "./"), strings.HasPrefix(c.Image, "../"): // a layout or an archive
		s.Image = filepath.Join(p.WorkingDir, c.Image)
	default:
		s.Image = c.Image
	}
	if c.Platform != "" && c.Platform != "linux/amd64" {
		bad("platform", "%q: guests are linux/amd64", c.Platform)
	}
	if n := c.GetScale(); n != 1 {
		bad("scale", "%d: there is one guest of a service", n)
	}
	for _, m := range mappings() {
		values, err := m.values(c)
		switch {
		case err != nil:
			key := strings.TrimSuffix(strings.TrimSuffix(m.keys[0], ".**"), ".[].target")
			if item, ok := errors.AsType[*itemError](err); ok {
				key, err = key+item.where, item.err
			}
			bad(key, "%w", err)
		case !o.Has(m.option): // its keys were refused by name, where they stand in the file
		default:
			for _, v := range values {
				s.Options = append(s.Options, "--"+m.option+"="+v)
			}
		}
	}
	if o.Has("secret") {
		s.Options = append(s.Options, secrets(c, p.Secrets)...)
	}
	extra, err := extension(c, p.WorkingDir, o.Has)
	if err != nil {
		bad(extensionKey, "%w", err)
	}
	s.Options = append(s.Options, extra...)
	s.setCommand(c)
	for _, name := range slices.Sorted(maps.Keys(c.DependsOn)) {
		d := c.DependsOn[name]
		if _, there := p.Services[name]; !there && !d.Required {
			continue
		}
		switch d.Condition {
		case "", types.ServiceConditionStarted, types.ServiceConditionCompletedSuccessfully, types.ServiceConditionHealthy:
			s.DependsOn = append(s.DependsOn, Dependency{
				Service:   name,
				Completed: d.Condition == types.ServiceConditionCompletedSuccessfully,
				Healthy:   d.Condition == types.ServiceConditionHealthy,
			})
		default:
			bad("depends_on."+name+".condition", "unknown: %q", d.Condition)
		}
	}
	return errors.Join(errs...)
}

// setCommand gives entrypoint and command docker's meaning: an entrypoint of
// several words is its first, the others stand before the command.
func (s *Service) setCommand(c types.ServiceConfig) {
	if c.Entrypoint != nil {
		first := ""
		if len(c.Entrypoint) > 0 {
			first = c.Entrypoint[0]
			s.Args = append(s.Args, c.Entrypoint[1:]...)
		}
		s.Options = append(s.Options, "--entrypoint="+first)
	}
	s.Args = append(s.Args, c.Command...)
}

// inOrder sorts services so that each stands after those it depends on. That they
// are there, and not in a circle, the loader has made sure of.
func inOrder(services []Service) []Service {
	byName := map[string]Service{}
	for _, s := range services {
		byName[s.Name] = s
	}
	var sorted []Service
	var visit func(name string)
	visit = func(name string) {
		s, there := byName[name]
		if !there {
			return
		}
		delete(byName, name)
		for _, d := range s.DependsOn {
			visit(d.Service)
		}
		sorted = append(sorted, s)
	}
	for _, s := range services {
		visit(s.Name)
	}
	return sorted
}

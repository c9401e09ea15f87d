package docker

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/kraudcloud/kattest/guest/pod"
)

// networkName is what docker's clients see as the guest's one network.
const networkName = "guest"

// list is "ps": the one container, or none.
func (s *Server) list(c *call) error {
	filters, err := c.filters("id", "name", "status", "health", "ancestor")
	if err != nil {
		return err
	}
	state, _ := s.engine.State()
	summary := s.summary(state)
	all := []api.Summary{}
	if (state.Running || c.flag("all") || filters["status"] != nil) && s.matches(summary, filters) {
		all = append(all, summary)
	}
	c.json(http.StatusOK, all)
	return nil
}

// matches says whether each filter has a value that fits.
func (s *Server) matches(summary api.Summary, filters map[string]map[string]bool) bool {
	for name, values := range filters {
		fits := func(value string) bool {
			switch name {
			case "id":
				return strings.HasPrefix(s.id, value)
			case "name": // docker's is a regular expression; anchors are what is used of it
				inner := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(value, "^"), "/"), "$")
				return inner == s.name || inner == value && strings.Contains(s.name, inner)
			case "status":
				return value == string(summary.State)
			case "health":
				return value == string(summary.Health.Status)
			}
			return value == s.spec.Image.Reference || value == s.spec.Image.Digest
		}
		found := len(values) == 0
		for value := range values {
			found = found || fits(value)
		}
		if !found {
			return false
		}
	}
	return true
}

func (s *Server) summary(state State) api.Summary {
	summary := api.Summary{
		ID: s.id, Names: []string{"/" + s.name}, Image: s.image(), ImageID: s.spec.Image.Digest,
		Command: strings.Join(s.spec.Process.Args, " "), Created: state.Started.Unix(),
		Ports: []api.PortSummary{}, Labels: map[string]string{}, State: condition(state), Status: status(state),
		Health: &api.HealthSummary{Status: api.NoHealthcheck}, Mounts: s.mounts(),
		NetworkSettings: &api.NetworkSettingsSummary{Networks: s.networks()},
	}
	if state.Started.IsZero() {
		summary.Created = 0
	}
	if state.Health != nil {
		*summary.Health = api.HealthSummary{Status: state.Health.Status, FailingStreak: state.Health.FailingStreak}
	}
	for _, p := range s.spec.Ports {
		summary.Ports = append(summary.Ports, api.PortSummary{PrivatePort: p.Port, Type: p.Protocol})
	}
	summary.HostConfig.NetworkMode = networkName
	return summary
}

func (s *Server) image() string {
	if s.spec.Image.Reference != "" {
		return s.spec.Image.Reference
	}
	return s.spec.Image.Digest
}

func condition(s State) api.ContainerState {
	switch {
	case s.Restarting:
		return api.StateRestarting
	case s.Running:
		return api.StateRunning
	case s.Exits > 0:
		return api.StateExited
	}
	return api.StateCreated
}

// status is docker's sentence in the list of containers.
func status(s State) string {
	switch condition(s) {
	case api.StateRunning:
		text := "Up " + ago(s.Started)
		if s.Health != nil {
			text += " (" + strings.Replace(string(s.Health.Status), "starting", "health: starting", 1) + ")"
		}
		return text
	case api.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.Exit, ago(s.Finished))
	case api.StateExited:
		return fmt.Sprintf("Exited (%d) %s ago", s.Exit, ago(s.Finished))
	}
	return "Created"
}

// ago is the time since then in its largest unit.
func ago(then time.Time) string {
	d := max(0, time.Since(then))
	for _, unit := range []struct {
		name string
		of   time.Duration
	}{{"days", 24 * time.Hour}, {"hours", time.Hour}, {"minutes", time.Minute}} {
		if d >= 2*unit.of {
			return fmt.Sprintf("%d %s", d/unit.of, unit.name)
		}
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}

// inspect tells all that the spec says of the container to who may have that, and to
// others what docker's client needs to know before it does anything else.
func (s *Server) inspect(c *call) error {
	state, _ := s.engine.State()
	answer := api.InspectResponse{
		ID: s.id, Name: "/" + s.name, Platform: "linux", State: s.state(state),
		Config:     &api.Config{Tty: s.spec.Process.Terminal, OpenStdin: s.opensStdin()},
		HostConfig: &api.HostConfig{},
	}
	// Who is allowed nothing of it asked for nothing more than the former.
	if !slices.Contains(c.client.Allow, pod.OpDockerInspect) {
		c.json(http.StatusOK, answer)
		return nil
	}
	if !s.decide(c.client, pod.OpDockerInspect) {
		return failure(http.StatusForbidden, "the launch spec does not allow this key %s", pod.OpDockerInspect)
	}
	answer.Created = state.Started.UTC().Format(time.RFC3339Nano)
	answer.Path, answer.Args = s.spec.Process.Args[0], s.spec.Process.Args[1:]
	answer.Image, answer.Driver, answer.RestartCount = s.spec.Image.Digest, "overlay", state.Restarts
	answer.Config, answer.HostConfig, answer.Mounts = s.config(), s.hostConfig(), s.mounts()
	answer.NetworkSettings = &api.NetworkSettings{Ports: s.ports(), Networks: s.networks()}
	c.json(http.StatusOK, answer)
	return nil
}

func (s *Server) opensStdin() bool { return s.spec.Process.Stdin || s.spec.Process.Terminal }

func (s *Server) state(state State) *api.State {
	return &api.State{
		Status: condition(state), Running: state.Running, Restarting: state.Restarting, ExitCode: state.Exit,
		StartedAt:  state.Started.UTC().Format(time.RFC3339Nano),
		FinishedAt: state.Finished.UTC().Format(time.RFC3339Nano),
		Health:     state.Health,
	}
}

func (s *Server) config() *api.Config {
	p := s.spec.Process
	c := &api.Config{
		Hostname: s.name, User: p.User, Tty: p.Terminal, OpenStdin: s.opensStdin(), Env: p.Env,
		Cmd: p.Args, Image: s.image(), WorkingDir: p.WorkingDir, StopSignal: p.StopSignal,
		Labels: map[string]string{}, ExposedPorts: network.PortSet{},
	}
	if p.StopTimeout != 0 {
		seconds := int(p.StopTimeout)
		c.StopTimeout = &seconds
	}
	for port := range s.ports() {
		c.ExposedPorts[port] = struct{}{}
	}
	if h := s.spec.Healthcheck; h != nil {
		milliseconds := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
		c.Healthcheck = &api.HealthConfig{
			Test: append([]string{"CMD"}, h.Test...), Interval: milliseconds(h.Interval), Timeout: milliseconds(h.Timeout),
			Retries: h.Retries, StartPeriod: milliseconds(h.StartPeriod), StartInterval: milliseconds(h.StartInterval),
		}
	}
	for _, dir := range s.spec.Image.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[dir] = struct{}{}
	}
	return c
}

func (s *Server) hostConfig() *api.HostConfig {
	p := s.spec.Process
	h := &api.HostConfig{
		NetworkMode: networkName, RestartPolicy: api.RestartPolicy{Name: api.RestartPolicyDisabled},
		CapDrop: []string{"ALL"}, CapAdd: p.Capabilities, GroupAdd: p.Groups,
		ReadonlyRootfs: s.spec.Image.ReadOnly, DNS: s.spec.Network.Nameservers, DNSSearch: s.spec.Network.Search, DNSOptions: s.spec.Network.Options, Init: &p.Init,
		CgroupnsMode: api.CgroupnsModePrivate, IpcMode: api.IPCModePrivate,
	}
	if r := s.spec.Restart; r != nil {
		h.RestartPolicy = api.RestartPolicy{Name: api.RestartPolicyMode(r.Policy), MaximumRetryCount: r.MaximumRetries}
	}
	if p.NoNewPrivileges {
		h.SecurityOpt = append(h.SecurityOpt, "no-new-privileges")
	}
	if p.Seccomp == pod.SeccompUnconfined {
		h.SecurityOpt = append(h.SecurityOpt, "seccomp=unconfined")
	}
	for _, host := range s.spec.Network.Hosts {
		h.ExtraHosts = append(h.ExtraHosts, host.Name+":"+host.Address.String())
	}
	for _, l := range p.Rlimits {
		h.Ulimits = append(h.Ulimits, &api.Ulimit{Name: strings.ToLower(strings.TrimPrefix(l.Name, "RLIMIT_")), Soft: l.Soft, Hard: l.Hard})
	}
	if r := s.spec.Resources; r != nil {
		h.Memory, h.NanoCPUs = int64(r.Memory), int64(r.CPU)*int64(time.Millisecond)
		if pids := int64(r.PIDs); pids != 0 {
			h.PidsLimit = &pids
		}
	}
	return h
}

func (s *Server) mounts() []api.MountPoint {
	all := []api.MountPoint{}
	for _, m := range s.spec.Mounts {
		point := api.MountPoint{Type: mount.Type(m.Type), Name: m.Name, Destination: m.Target, RW: !m.ReadOnly}
		if m.Type == pod.MountNFS {
			point.Source = m.Source
		}
		all = append(all, point)
	}
	return all
}

func (s *Server) ports() network.PortMap {
	ports := network.PortMap{}
	for _, p := range s.spec.Ports {
		if port, ok := network.PortFrom(p.Port, network.IPProtocol(p.Protocol)); ok {
			ports[port] = nil
		}
	}
	return ports
}

func (s *Server) networks() map[string]*network.EndpointSettings {
	e := &network.EndpointSettings{NetworkID: networkName, EndpointID: networkName}
	for _, a := range s.spec.Network.Addresses {
		switch {
		case a.Addr().Is4() && !e.IPAddress.IsValid():
			e.IPAddress, e.IPPrefixLen = a.Addr(), a.Bits()
		case a.Addr().Is6() && !e.GlobalIPv6Address.IsValid():
			e.GlobalIPv6Address, e.GlobalIPv6PrefixLen = a.Addr(), a.Bits()
		}
	}
	is4 := func(a netip.Addr) bool { return a.Is4() }
	if i := slices.IndexFunc(s.spec.Network.Gateways, is4); i >= 0 {
		e.Gateway = s.spec.Network.Gateways[i]
	}
	return map[string]*network.EndpointSettings{networkName: e}
}

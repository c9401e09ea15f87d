package docker

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// product is what the server calls itself.
const product = "kattest guest agent"

// ping says that the server is there.
func (s *Server) ping(c *call) error {
	h := c.w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Docker-Experimental", "false")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", "2")
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write([]byte("OK"))
	}
	return nil
}

// version tells of the server, in the members that docker's clients print. The types
// of moby's package for these drag in those of a whole daemon.
func (s *Server) version(c *call) error {
	c.json(http.StatusOK, map[string]any{
		"Platform":      map[string]string{"Name": product},
		"Version":       "1." + fmt.Sprint(newestMinor),
		"ApiVersion":    fmt.Sprintf("1.%d", newestMinor),
		"MinAPIVersion": fmt.Sprintf("1.%d", oldestMinor),
		"Os":            runtime.GOOS,
		"Arch":          runtime.GOARCH,
		"GoVersion":     runtime.Version(),
		"KernelVersion": kernel(),
	})
	return nil
}

// info tells of the guest.
func (s *Server) info(c *call) error {
	state, _ := s.engine.State()
	running := 0
	if state.Running {
		running = 1
	}
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		return err
	}
	c.json(http.StatusOK, map[string]any{
		"ID": s.id, "Name": s.name, "ServerVersion": "1." + fmt.Sprint(newestMinor),
		"Containers": 1, "ContainersRunning": running, "ContainersStopped": 1 - running, "Images": 1,
		"Driver": "overlay", "LoggingDriver": "memory", "CgroupDriver": "none", "CgroupVersion": "2",
		"OperatingSystem": product, "OSType": runtime.GOOS, "Architecture": "x86_64", "KernelVersion": kernel(),
		"NCPU": runtime.NumCPU(), "MemTotal": memory.Totalram * uint64(memory.Unit),
		"MemoryLimit": true, "PidsLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true,
		"SystemTime": time.Now().UTC().Format(time.RFC3339Nano), "SecurityOptions": []string{"name=seccomp,profile=builtin"},
	})
	return nil
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return strings.TrimRight(string(u.Release[:]), "\x00")
}

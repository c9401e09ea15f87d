// Command probe tells what a command in the sandbox sees, in JSON. Its arguments
// are an address to dial, or "sleep".
package main

import (
	"encoding/json"
	"net"
	"os"
	"slices"
	"time"
)

func main() {
	if os.Args[1] == "sleep" {
		os.Stdout.WriteString("asleep\n")
		time.Sleep(time.Hour)
	}
	hostname, _ := os.Hostname()
	dir, _ := os.Getwd()
	seen := map[string]any{
		"hostname": hostname,
		"dir":      dir,
		"env":      sorted(os.Environ()),
		"uid":      os.Getuid(),
		"gid":      os.Getgid(),
		"root":     names("/"),
		"in":       names("/in"),
		"dial":     failure(dial(os.Args[1])),
		"readOnly": failure(os.WriteFile("/in/new", nil, 0o644)),
		"writable": failure(os.WriteFile("/build/new", []byte("made inside"), 0o644)),
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if i.Name != "lo" {
			seen["interface"] = i.Name
		}
	}
	json.NewEncoder(os.Stdout).Encode(seen)
}

func dial(address string) error {
	c, err := net.Dial("tcp", address)
	if err == nil {
		c.Close()
	}
	return err
}

func sorted(s []string) []string { slices.Sort(s); return s }

func names(dir string) []string {
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// failure is the kind of an error, without what differs between runs.
func failure(err error) bool { return err != nil }

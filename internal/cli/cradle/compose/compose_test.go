package compose

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// all is a summon with every option that there could be, now one with what it
// has had from the start.
func all(string) bool { return true }

func few(option string) bool {
	return slices.Contains([]string{"env", "publish", "memory", "vcpus", "mount", "hostname", "console"}, option)
}

func load(t *testing.T, text string, o Options) (Project, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	o.File = filepath.Join(dir, "compose.yaml")
	for name, content := range map[string]string{o.File: text, filepath.Join(dir, "db.env"): "FROM_FILE=yes\nBOTH=file\n", filepath.Join(dir, ".env"): "TAG=v1\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(t.Context(), o)
}

func TestLoad(t *testing.T) {
	t.Setenv("PASSWORD", "s3cret, x=1")
	p, err := load(t, `
services:
  web:
    image: registry.example/web:${TAG}
    command: serve --port 80 "two words"
    ports: ["8080:80", "127.0.0.1:8443:443/tcp", "53/udp"]
    depends_on: {db: {condition: service_healthy}}
    tmpfs: ["/run", "/tmp:size=64m,mode=1777"]
    volumes:
      - {type: tmpfs, target: /cache, tmpfs: {size: 1048576, mode: 0o755}}
    x-note: anything
  db:
    image: ./images/db
    container_name: database
    entrypoint: ["/bin/tini", "--", "start"]
    command: ["db"]
    environment: [PASSWORD, "BOTH=here", "ONLY=1", NOT_SET_ANYWHERE]
    env_file: db.env
    user: "999:999"
    group_add: [4]
    working_dir: /srv
    hostname: db1
    cap_add: [NET_BIND_SERVICE]
    cap_drop: [ALL]
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    read_only: true
    restart: "on-failure:3"
    ulimits: {nproc: 64, nofile: {soft: 10, hard: 20}}
    healthcheck: {test: "db ping", interval: 5s, timeout: 1s, start_period: 1m, start_interval: 500ms, retries: 3}
    deploy: {resources: {limits: {cpus: "2", memory: 1G, pids: 50}}}
    platform: linux/amd64
    x-cradle-snp: {console: output, scratch: 1g, client: [a.pem, /b.pem=ps]}
    depends_on:
      init: {condition: service_completed_successfully}
  init:
    image: registry.example/init
    entrypoint: []
    mem_limit: 300m
    cpus: 1.5
    expose: ["9000", "53/udp"]
    dns: 10.0.0.1
    dns_opt: [ndots:2, rotate]
    init: true
    secrets:
      - password
      - {source: key, target: /etc/key.pem, mode: 0o400, uid: "999"}
secrets: {password: {external: true}, key: {external: true, name: tls-key}}
`, Options{Has: all})
	if err != nil {
		t.Fatal(err)
	}
	want := Project{Name: "shop", Dir: p.Dir, Services: []Service{
		{
			Name: "init", Guest: "shop-init", Image: "registry.example/init",
			Options: []string{
				"--hostname=init", "--dns=10.0.0.1", "--expose=9000", "--expose=53/udp", "--dns-option=ndots:2", "--dns-option=rotate", "--init=true", "--memory=300M", "--vcpus=2", "--cpus=1.5",
				"--secret=password,target=/run/secrets/password", "--secret=tls-key,target=/etc/key.pem,mode=400,uid=999", "--entrypoint=",
			},
		},
		{
			Name: "db", Guest: "database", Image: filepath.Join(p.Dir, "images/db"),
			Options: []string{
				"--env=BOTH=here", "--env=FROM_FILE=yes", "--env=ONLY=1", "--env=PASSWORD=s3cret, x=1",
				"--user=999:999", "--group-add=4", "--workdir=/srv", "--hostname=db1",
				"--cap-add=NET_BIND_SERVICE", "--cap-drop=ALL", "--stop-signal=SIGINT", "--stop-timeout=90", "--read-only=true",
				"--ulimit=nofile=10:20", "--ulimit=nproc=64", "--restart=on-failure:3",
				"--health-cmd=db ping", "--health-interval=5s", "--health-timeout=1s", "--health-start-period=1m0s", "--health-start-interval=500ms", "--health-retries=3",
				"--pids-limit=50", "--memory=1024M", "--vcpus=2",
				"--client=" + filepath.Join(p.Dir, "a.pem"), "--client=/b.pem=ps", "--console=output", "--scratch=1g",
				"--entrypoint=/bin/tini",
			},
			Args:      []string{"--", "start", "db"},
			DependsOn: []Dependency{{Service: "init", Completed: true}},
		},
		{
			Name: "web", Guest: "shop-web", Image: "registry.example/web:v1",
			Options: []string{
				"--publish=8080:80/tcp", "--publish=127.0.0.1:8443:443/tcp", "--publish=53/udp", "--hostname=web",
				"--tmpfs=/run", "--tmpfs=/tmp:size=64m,mode=1777",
				"--mount=type=tmpfs,target=/cache,tmpfs-size=1048576,tmpfs-mode=755",
			},
			Args:      []string{"serve", "--port", "80", "two words"},
			DependsOn: []Dependency{{Service: "db", Healthy: true}},
		},
	}}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestHealth: a check has two forms, and may be switched off.
func TestHealth(t *testing.T) {
	for check, want := range map[string][]string{
		`{test: "a && b"}`:              {"--health-cmd=a && b"},
		`{test: [CMD-SHELL, "a && b"]}`: {"--health-cmd=a && b"},
		`{test: [CMD, /a, "b c"]}`:      {"--health-exec=/a", "--health-exec=b c"},
		`{test: [NONE]}`:                {"--no-healthcheck=true"},
		`{disable: true}`:               {"--no-healthcheck=true"},
		`{test: x, disable: true}`:      {"--no-healthcheck=true"},
		`{interval: 5s}`:                {"--health-interval=5s"}, // of the image's
	} {
		p, err := load(t, "services: {a: {image: a, hostname: h, healthcheck: "+check+"}}", Options{Has: all})
		if err != nil {
			t.Errorf("%s: %v", check, err)
			continue
		}
		if diff := cmp.Diff(append([]string{"--hostname=h"}, want...), p.Services[0].Options); diff != "" {
			t.Errorf("%s (-want +got):\n%s", check, diff)
		}
	}
}

// TestRefused: what a guest cannot have is named by its key, all of it at once.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		has        func(string) bool
		want       []string
	}{
		{"keys", `
services:
  a:
    image: a
    privileged: true
    build: .
    deploy: {mode: global, resources: {reservations: {memory: 1g}}}
    networks: [front]
    logging: {driver: none}
    ports: [{target: 80, app_protocol: http}]
networks: {front: {}}
secrets: {s: {file: ./db.env}}
`, all, []string{
			"services.a.privileged: not supported", "services.a.build: not supported", "services.a.deploy.mode: not supported",
			"services.a.deploy.resources.reservations: not supported", "services.a.networks: not supported", "services.a.logging: not supported",
			"services.a.ports.[].app_protocol: not supported", "networks: not supported", "secrets.s.file: not supported",
		}},
		{"what this summon has no option for", `
services: {a: {image: a, read_only: true, restart: always, user: "1", ulimits: {nofile: 10}, healthcheck: {test: x}}}
`, few, []string{
			"services.a.read_only: not supported", "services.a.restart: not supported", "services.a.user: not supported",
			"services.a.ulimits: not supported", "services.a.healthcheck: not supported",
		}},
		{"values", `
services:
  a:
    image: a
    platform: linux/arm64
    scale: 2
    stop_grace_period: 1500ms
    healthcheck: {test: [CMD]}
    ports: ["8000-8001:80"]
    x-cradle-snp: {env: {A: 1}}
  b: {image: b, volumes: ["/run:/run", "./data:/data"], x-cradle-snp: text}
  c: {image: c, volumes: ["data:/data"], container_name: same}
  d: {image: d, container_name: same, healthcheck: {test: [CMD-SHELL, a, b]}}
volumes: {data: {}}
`, all, []string{
			`services.a.platform: "linux/arm64": guests are linux/amd64`, "services.a.scale: 2",
			"services.a.stop_grace_period: 1.5s: whole seconds",
			"services.a.healthcheck.test: 0 words after CMD", "services.d.healthcheck.test: 2 words after CMD-SHELL", `services.a.ports[0].published: "8000-8001"`,
			"services.a.x-cradle-snp: env: a value or a list",
			"services.b.volumes[0]: bind: the host's files do not reach", "services.b.x-cradle-snp: a mapping",
			"volumes: not supported", "services.c.volumes[0]: a volume is encrypted with an owner's key", `services.d.container_name: "same" is that of services.c`,
		}},
		{"built, not pulled", `services: {a: {build: .}}`, all, []string{"services.a.build: not supported", "services.a.image: missing"}},
		{"a name that is a path", `services: {a: {image: a, container_name: "../../etc"}}`, all, []string{"services.a.container_name"}},
		{"neither", `services: {a: {command: x}}`, all, []string{"neither an image nor a build context"}},
		{"two values", `services: {a: {image: a, mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}}}`, all, []string{"distinct values on 'mem_limit'"}},
		{"a circle", `services: {a: {image: a, depends_on: [b]}, b: {image: b, depends_on: [a]}}`, all, []string{"cycle detected: a -> b -> a"}},
		{"no such condition", `services: {a: {image: a, depends_on: {b: {condition: wealthy}}}, b: {image: b}}`, all, []string{"services.a.depends_on.b.condition"}},
		{"no such service", `services: {a: {image: a, depends_on: [b]}}`, all, []string{"b"}},
		{"no services", `name: x`, all, []string{"services: none"}},
		{"unknown to compose", `services: {a: {image: a, imagee: b}}`, all, []string{"imagee"}},
		{"twice", "services:\n  a: {image: a}\n  a: {image: b}\n", all, []string{"already defined"}},
		{"no compose file", `- a`, all, []string{"cannot construct"}},
		{"an option that summon has not", `services: {a: {image: a, x-cradle-snp: {fast: true}}}`, few, []string{"services.a.x-cradle-snp: fast: summon has no such option"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := load(t, tt.text, Options{Has: tt.has})
			if err == nil || len(p.Services) != 0 {
				t.Fatalf("got %+v, %v", p, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in:\n%v", want, err)
				}
			}
		})
	}
}

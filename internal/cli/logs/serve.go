package logs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release/tlog"
	"github.com/kraudcloud/kattest/measure/release/tlog/store"
)

func newServe() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "serve DIR",
		Short: "Serve a log over HTTP",
		Long: `Serve the files of the log in DIR over HTTP, until it is stopped. Any web server or
object store does as well: what is read is signed, or hashed by what is signed. Of the
folder 'checkpoint', 'trusted_root.json' and 'tile/' are public; '.state' need not be.

The answer is the address, once it is there. Put a server that speaks TLS in front of
it.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return serve(cmd, args[0], listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8470", "address and port; port 0 is any free one")
	return cmd
}

func serve(cmd *cobra.Command, dir, address string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return cli.Usage(err, "")
	}
	defer root.Close()
	if _, err := root.Stat(tlog.CheckpointPath); err != nil {
		return cli.Usage(fmt.Errorf("%s: no log is here: %w", dir, err), "'kattest log init' makes one")
	}
	listener, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", address)
	if err != nil {
		return cli.Usage(fmt.Errorf("--listen: %w", err), "")
	}
	server := &http.Server{
		Handler:           handler(root),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 5 * time.Minute, IdleTimeout: time.Minute,
		MaxHeaderBytes: 8 << 10,
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "http://%s/\n", listener.Addr()); err != nil {
		return err
	}
	stopped := make(chan error, 1)
	go func() {
		<-cmd.Context().Done()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(ctx)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// tilePath is that of hashes and of entries; it never changes what it holds.
// Source: C2SP tlog-tiles.
var tilePath = regexp.MustCompile(`^/tile/(entries|[0-5]?[0-9])/(x[0-9]{3}/)*[0-9]{3}(\.p/[0-9]{1,3})?$`)

// handler serves what is public of a log.
func handler(root *os.Root) http.Handler {
	files := http.FileServerFS(root.FS())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "a log is read", http.StatusMethodNotAllowed)
		case r.URL.Path == "/"+tlog.CheckpointPath:
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-cache")
			files.ServeHTTP(w, r)
		case r.URL.Path == "/"+store.TrustedRootPath:
			w.Header().Set("Content-Type", "application/json")
			files.ServeHTTP(w, r)
		case tilePath.MatchString(r.URL.Path):
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			files.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

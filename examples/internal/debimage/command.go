package debimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// Recipe is how an image is made.
type Recipe struct {
	Name  string // of the command, and of the lock file's set
	Title string // of the software
	Lock  []byte // the lock file
	// Image makes the image of the set's packages, files on this machine.
	Image func(ctx context.Context, debs []string) (v1.Image, error)
}

// Command is the command that makes the image.
func (r Recipe) Command() *cobra.Command {
	var out, cache string
	var folders []string
	cmd := &cobra.Command{
		Use:   r.Name + " --out DIR",
		Short: "Make an OCI image of " + r.Title + " from locked Debian packages",
		Long: "Make an OCI image of " + r.Title + ` from locked Debian packages, and write it to DIR as
an OCI image layout. On standard output stands the manifest's digest.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return cli.Usage(errors.New("--out is missing"), "name the folder for the image")
			}
			if cache == "" {
				user, err := os.UserCacheDir()
				if err != nil {
					return cli.Usage(err, "name a folder for downloads with --cache")
				}
				cache = filepath.Join(user, "kattest")
			}
			f := &fetch.Fetcher{Cache: cache, Folders: folders, Log: cmd.ErrOrStderr()}
			digest, err := r.Make(cmd.Context(), f, out, cmd.ErrOrStderr())
			if missing, ok := errors.AsType[*fetch.UnavailableError](err); ok {
				return &cli.Error{Code: cli.ExitUnavailable, Err: err, Hint: missing.Hint()}
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), digest)
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "folder for the image")
	cmd.Flags().StringVar(&cache, "cache", "", "folder for downloads (default: kattest in the user's cache folder)")
	cmd.Flags().StringArrayVar(&folders, "inputs", nil, "folder with packages, asked before the mirror; may be repeated")
	return cmd
}

// Make fetches the packages and writes the image to the folder out, as an OCI
// image layout. It returns the manifest's digest.
func (r Recipe) Make(ctx context.Context, f *fetch.Fetcher, out string, log io.Writer) (string, error) {
	l, err := lock.Parse(r.Lock)
	if err != nil {
		return "", err
	}
	if err := replaceable(out); err != nil {
		return "", cli.Usage(err, "name a new folder, or one that holds an image")
	}
	debs, err := f.GetAll(ctx, l.Set(r.Name))
	if err != nil {
		return "", err
	}
	fmt.Fprintf(log, "%s: %d packages\n", r.Name, len(debs))
	img, err := r.Image(ctx, debs)
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(out)), "."+r.Name+"-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	where, err := layout.Write(tmp, empty.Index)
	if err != nil {
		return "", err
	}
	if err := where.AppendImage(img); err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), os.RemoveAll(out)); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, out); err != nil {
		return "", err
	}
	return digest.String(), nil
}

// replaceable refuses a folder that holds something other than an image.
func replaceable(out string) error {
	entries, err := os.ReadDir(out)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(out, "oci-layout")); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty and holds no image", out)
	}
	return nil
}

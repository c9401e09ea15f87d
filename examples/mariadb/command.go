package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

//go:embed lock.json
var lockFile []byte

// setName is the lock file's set of packages.
const setName = "mariadb"

func newRoot() *cobra.Command {
	var out, cache string
	var folders []string
	cmd := &cobra.Command{
		Use:   "mariadb --out DIR",
		Short: "Make an OCI image of MariaDB from locked Debian packages",
		Long: `Mariadb makes an OCI image of MariaDB from locked Debian packages and writes it
to DIR as an OCI image layout. On standard output stands the manifest's digest.`,
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
			digest, err := makeImage(cmd.Context(), f, out, cmd.ErrOrStderr())
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
	cmd.AddCommand(newQuery())
	return cmd
}

// makeImage fetches the packages and writes the image. It returns the
// manifest's digest.
func makeImage(ctx context.Context, f *fetch.Fetcher, out string, log io.Writer) (string, error) {
	l, err := lock.Parse(lockFile)
	if err != nil {
		return "", err
	}
	if err := replaceable(out); err != nil {
		return "", cli.Usage(err, "name a new folder, or one that holds an image")
	}
	debs, err := f.GetAll(ctx, l.Set(setName))
	if err != nil {
		return "", err
	}
	fmt.Fprintf(log, "mariadb: %d packages\n", len(debs))
	img, err := newImage(ctx, debs)
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(out)), ".mariadb-*")
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

package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/measure"
)

// Folder returns where results are kept: kattest/firmware in the user's cache
// folder, a file for each image, named by its SHA-256.
func Folder() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(user, "kattest", "firmware"), nil
}

func recordFile(folder string, firmware measure.Hash) string {
	return filepath.Join(folder, firmware.String()+".json")
}

// Save keeps the result, in the place of an older one.
func (r Result) Save(folder string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keeping the probe's result: %w", err)
		}
	}()
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return wholefile.Write(recordFile(folder, r.Firmware), append(data, '\n'), 0o600)
}

// maxRecord bounds a result's file, in bytes.
const maxRecord = 64 << 10

// Load returns the kept result of an image, or an error that wraps
// fs.ErrNotExist where there is none.
func Load(folder string, firmware measure.Hash) (Result, error) {
	name := recordFile(folder, firmware)
	r, err := load(name, firmware)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Result{}, fmt.Errorf("%s: %w", name, err)
	}
	return r, err
}

func load(name string, firmware measure.Hash) (Result, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Result{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRecord {
		return Result{}, fmt.Errorf("not a file of at most %d bytes", maxRecord)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return Result{}, err
	}
	var r Result
	if err := strictjson.Decode(data, &r); err != nil {
		return Result{}, err
	}
	switch {
	case r.MediaType != MediaType:
		return Result{}, fmt.Errorf("media type %q, want %q", r.MediaType, MediaType)
	case r.Firmware != firmware:
		return Result{}, fmt.Errorf("of firmware %v", r.Firmware)
	case len(r.Boots) == 0:
		return Result{}, errors.New("no boots")
	}
	if verdict, _ := judge(r.Boots); verdict != r.Verdict {
		return Result{}, fmt.Errorf("its boots say %q, its verdict is %q", verdict, r.Verdict)
	}
	return r, nil
}

// Enforcement says what is known of an image without booting it: from the table
// of known ones, else from the probe's result that is kept in folder. Source
// says from where. A result that cannot be read counts as none; the error says why.
func Enforcement(folder string, firmware measure.Hash) (v Verdict, source string, err error) {
	if k, ok := Known(firmware); ok {
		return k.Verdict, k.String(), nil
	}
	r, err := Load(folder, firmware)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Unknown, "never probed", nil
	case err != nil:
		return Unknown, "never probed", err
	default:
		return r.Verdict, fmt.Sprintf("probed %s with QEMU %s: %s", r.Time.Format("2006-01-02"), r.QEMU, r.Reason), nil
	}
}

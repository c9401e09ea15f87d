package vm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// An ID block stands in vm.json, and is checked whenever the folder is opened.
func TestIDBlock(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := idblock.Block{Measurement: measure.Digest{1}, Policy: idblock.DefaultPolicy}
	auth, err := idblock.Sign(b, key, key)
	if err != nil {
		t.Fatal(err)
	}
	config := DefaultConfig()
	config.IDBlock = &idblock.Signed{Block: b, Auth: auth}
	dir := filepath.Join(t.TempDir(), "vm")
	if err := Create(dir, config, testStack(t), fill(1)); err != nil {
		t.Fatal(err)
	}
	v, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.IDBlock, v.Config.IDBlock); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	name := filepath.Join(dir, ConfigFile)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	changed := b
	changed.GuestSVN = 1
	old, err := b.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	other, err := changed.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		old, new string
		want     string
		is       error
	}{
		{"another block", string(old), string(other), "idBlock: ID_BLOCK_SIG", idblock.ErrSignature},
		{"no block", `"block": "` + string(old) + `",`, "", "idBlock", idblock.ErrSignature},
		{"cut", string(old), string(old[4:]), "ID block: 124 bytes", nil},
		{"a third member", `"block"`, `"blocks": 1, "block"`, `unknown member "blocks"`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tampered := bytes.Replace(data, []byte(tt.old), []byte(tt.new), 1)
			if bytes.Equal(tampered, data) {
				t.Fatal("nothing was changed")
			}
			write(t, name, tampered)
			_, err := Open(dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
	config.IDBlock.Auth.BlockSignature[3] ^= 1
	if err := Create(filepath.Join(t.TempDir(), "vm"), config, testStack(t), fill(1)); !errors.Is(err, idblock.ErrSignature) {
		t.Errorf("Create with a broken one: %v", err)
	}
}

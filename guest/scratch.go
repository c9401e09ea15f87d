package guest

import (
	"context"
	"crypto/rand"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/guest/volume"
)

// scratchSlot is where the scratch disk's superblock stands in memory; those of
// volumes follow it.
const scratchSlot = 0

// openScratch makes an empty file system on the scratch disk, under keys that no
// one ever sees: whatever the disk held is nothing to this guest.
func openScratch(ctx context.Context, size uint64) (*volume.Volume, error) {
	node, err := waitFor(ctx, serials, port.ScratchDisk)
	if err != nil {
		return nil, err
	}
	var secret [volume.MinSecret]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	defer clear(secret[:])
	keys, err := volume.NewKeys(secret[:], port.ScratchDisk)
	if err != nil {
		return nil, err
	}
	return volume.Create(volume.Disk{
		Name: port.ScratchDisk, Node: node, Size: size, Kind: volume.Ephemeral, Slot: scratchSlot, Keys: keys,
	})
}

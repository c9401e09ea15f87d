package vtpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
)

// CredentialSize is the size in bytes of the secret that MakeCredential protects.
const CredentialSize = 32

// Magic and version of the file that tpm2-tools reads and writes.
const (
	credentialMagic   = 0xbadcc0de
	credentialVersion = 1
)

// parseEK reads the public area of a storage key of a TPM: restricted, decrypting,
// not signing, fixed to its TPM.
func parseEK(public []byte) (*tpm2.TPMTPublic, error) {
	area, err := unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, err
	}
	if _, err := publicKey(area); err != nil {
		return nil, err
	}
	if a := area.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return nil, errors.New("its attributes are not a storage key's: fixedTPM, fixedParent, sensitiveDataOrigin, restricted and decrypt")
	}
	return area, nil
}

// MakeCredential encrypts secret so that only the TPM with the EK can read it,
// and only with an object named ak loaded (part 1, section 24). Who can tell the
// secret has a TPM with both: that is how the AK is bound to the EK of a report.
// random is crypto/rand's reader. The result is the file that tpm2_activatecredential
// of tpm2-tools takes: magic and version (32 bits each, big-endian), then
// TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
func MakeCredential(random io.Reader, ek []byte, ak Key, secret [CredentialSize]byte) ([]byte, error) {
	area, err := parseEK(ek)
	if err != nil {
		return nil, fmt.Errorf("making a credential: EK: %w", err)
	}
	if ak.name == nil {
		return nil, errors.New("making a credential: the AK's name is not known")
	}
	key, err := tpm2.ImportEncapsulationKey(area)
	if err != nil {
		return nil, fmt.Errorf("making a credential: EK: %w", err)
	}
	object, encrypted, err := tpm2.CreateCredential(random, key, ak.name, secret[:])
	if err != nil {
		return nil, fmt.Errorf("making a credential: %w", err)
	}
	file := binary.BigEndian.AppendUint32(nil, credentialMagic)
	file = binary.BigEndian.AppendUint32(file, credentialVersion)
	for _, part := range [][]byte{object, encrypted} {
		file = binary.BigEndian.AppendUint16(file, uint16(len(part)))
		file = append(file, part...)
	}
	return file, nil
}

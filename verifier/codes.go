package verifier

// Code names a check. Codes are stable; docs/spec/checks.md is made from the
// catalogue below.
type Code string

// The checks.
const (
	CodeInput     Code = "input"
	CodeSize      Code = "report.size"
	CodeVersion   Code = "report.version"
	CodeReserved  Code = "report.reserved"
	CodeAlgorithm Code = "report.signature-algo"
	CodeSigner    Code = "report.signer-info"
	CodeLevel     Code = "report.vmpl"
	CodeTable     Code = "certificate-table"
	CodeEvidence  Code = "evidence"

	CodeCertificate Code = "certificate"
	CodeForm        Code = "certificate.form"
	CodeKey         Code = "certificate.key"
	CodeProduct     Code = "certificate.product"
	CodeChain       Code = "certificate.chain"
	CodeValidity    Code = "certificate.validity"
	CodeCRL         Code = "certificate.crl"
	CodeRevocation  Code = "certificate.revocation"
	CodeCertTCB     Code = "certificate.tcb"
	CodeChipID      Code = "certificate.chip-id"
	CodeSignature   Code = "signature"

	CodeNonce       Code = "nonce"
	CodeTLSKey      Code = "tls-key"
	CodeReportData  Code = "report-data"
	CodeMeasurement Code = "measurement"

	CodeTPMBinding    Code = "tpm.binding"
	CodeTPMQuote      Code = "tpm.quote"
	CodeTPMNonce      Code = "tpm.nonce"
	CodeTPMCredential Code = "tpm.credential"
	CodeTPMPCRs       Code = "tpm.pcrs"
	CodeTPMEventLog   Code = "tpm.event-log"
	CodeTPMPolicy     Code = "tpm.policy"

	CodeHostData Code = "host-data"

	CodeIDKey     Code = "id-block.id-key"
	CodeAuthorKey Code = "id-block.author-key"
	CodeFamilyID  Code = "id-block.family-id"
	CodeImageID   Code = "id-block.image-id"
	CodeGuestSVN  Code = "id-block.guest-svn"

	CodeVMPL           Code = "vmpl"
	CodeDebug          Code = "policy.debug"
	CodeMigration      Code = "policy.migration"
	CodePolicyABI      Code = "policy.abi"
	CodePolicyBits     Code = "policy.bits"
	CodeMigrationAgent Code = "report-id-ma"

	CodeAllowedProduct Code = "product"
	CodeAllowedChip    Code = "chip"
	CodeCSPID          Code = "csp-id"
	CodePlatform       Code = "platform"
	CodeProvisional    Code = "tcb.provisional"
	CodeReportedTCB    Code = "tcb.reported"
	CodeCommittedTCB   Code = "tcb.committed"
	CodeLaunchTCB      Code = "tcb.launch"
	CodeFirmware       Code = "firmware"
	CodeLaunchMit      Code = "mitigation.launch"
	CodeCurrentMit     Code = "mitigation.current"
)

// Class says what the failure of a check means, and so the verdict.
type Class int

// The classes. The zero value is none.
const (
	_               Class = iota
	ClassFormat           // the input is not what it should be: Malformed
	ClassSignature        // it cannot be believed: Forged
	ClassCollateral       // what it is judged with could not be had: Unavailable
	ClassPolicy           // it says what is not accepted: Mismatch
)

func (c Class) String() string {
	switch c {
	case ClassFormat:
		return "format"
	case ClassSignature:
		return "signature"
	case ClassCollateral:
		return "collateral"
	case ClassPolicy:
		return "policy"
	default:
		return "unknown class"
	}
}

// Range is a range of bytes in the report of 1184 bytes.
type Range struct {
	Offset int `json:"offset"`
	Length int `json:"length"`
}

// CheckInfo describes a check.
type CheckInfo struct {
	Code  Code
	Class Class
	Field string // of the report, by AMD's name, or of another part of the input; may be empty
	Bytes Range  // of the report; the zero value where the check is of none, or of several
	// Meaning says what holds when the check passes.
	Meaning string
}

// Checks returns every check, in the order in which they stand in a result.
func Checks() []CheckInfo { return append([]CheckInfo(nil), catalogue...) }

// catalogue is the one place where a check is described. Offsets: see ParseReport.
var catalogue = []CheckInfo{
	{CodeInput, ClassFormat, "", Range{}, "the input could be read"},
	{CodeSize, ClassFormat, "", Range{0, ReportSize}, "the input is a report of 1184 bytes, with or without a certificate table behind it, or evidence"},
	{CodeVersion, ClassFormat, "VERSION", Range{0x000, 4}, "the report's version is one that this verifier knows, 2 to 5"},
	{CodeReserved, ClassFormat, "reserved", Range{}, "what the report's version reserves is zero"},
	{CodeAlgorithm, ClassFormat, "SIGNATURE_ALGO", Range{0x034, 4}, "the signature is ECDSA P-384 with SHA-384"},
	{CodeSigner, ClassFormat, "SIGNER_INFO", Range{0x048, 4}, "no reserved bit is set"},
	{CodeLevel, ClassFormat, "VMPL", Range{0x030, 4}, "the privilege level is one that exists, 0 to 3"},
	{CodeTable, ClassFormat, "certificate table", Range{}, "the table's entries lie within it, behind the list of entries, and do not overlap"},
	{CodeEvidence, ClassFormat, "evidence", Range{}, "the evidence has its documented form"},

	{CodeCertificate, ClassCollateral, "", Range{}, "there is a certificate of the key that signed the report"},
	{CodeForm, ClassSignature, "", Range{}, "it is a VCEK's or VLEK's, with every extension that AMD gives it and no other"},
	{CodeKey, ClassSignature, "SIGNING_KEY", Range{0x048, 4}, "it is of the kind of key that SIGNING_KEY names"},
	{CodeProduct, ClassSignature, "CPUID_FAM_ID, CPUID_MOD_ID", Range{0x188, 2}, "it is for the product that the report's family and model name"},
	{CodeChain, ClassSignature, "", Range{}, "it is signed by an ASK (for a VLEK an ASVK) that is signed by the product's ARK, which is compiled in"},
	{CodeValidity, ClassSignature, "", Range{}, "it and the chain are valid at the time of judgement"},
	{CodeCRL, ClassCollateral, "", Range{}, "there is a revocation list, signed by the ARK, in date at the time of judgement"},
	{CodeRevocation, ClassSignature, "", Range{}, "no such list names the ASK, the ASVK or the certificate"},
	{CodeCertTCB, ClassSignature, "REPORTED_TCB", Range{0x180, 8}, "it is for the TCB that the report gives"},
	{CodeChipID, ClassSignature, "CHIP_ID", Range{0x1a0, 64}, "it is for the report's chip (VCEK)"},
	{CodeSignature, ClassSignature, "SIGNATURE", Range{signatureOffset, 2 * scalarSize}, "the certificate's key signed these very bytes"},

	{CodeNonce, ClassPolicy, "nonce", Range{}, "the evidence answers the challenge"},
	{CodeTLSKey, ClassSignature, "public key", Range{}, "the connection ends at the guest's key"},
	{CodeReportData, ClassPolicy, "REPORT_DATA", Range{0x050, 64}, "it binds the evidence's nonce, key and events, or is the value demanded"},
	{CodeTPMBinding, ClassSignature, "REPORT_DATA", Range{0x050, 64}, "it binds the virtual TPM's keys: the runtime data with the AK, or an SVSM's manifest with the EK"},
	{CodeTPMQuote, ClassSignature, "quote", Range{}, "the AK signed it, and a TPM made it"},
	{CodeTPMNonce, ClassPolicy, "", Range{}, "the quote, or the report where there is none, answers the challenge"},
	{CodeTPMCredential, ClassPolicy, "extraData", Range{}, "the AK is in the TPM whose EK the report binds: it could read the secret that was made for both (SVSM)"},
	{CodeTPMPCRs, ClassSignature, "PCRs", Range{}, "the values are those that were quoted"},
	{CodeTPMEventLog, ClassSignature, "event log", Range{}, "it replays to the quoted values of the PCRs that it extends"},
	{CodeTPMPolicy, ClassPolicy, "", Range{}, "the PCRs demanded are quoted, and have one of the values demanded"},

	{CodeMeasurement, ClassPolicy, "MEASUREMENT", Range{0x090, 48}, "it is the launch digest of a boot stack that is accepted"},

	{CodeIDKey, ClassPolicy, "ID_KEY_DIGEST", Range{0x0e0, 48}, "one of the ID keys demanded signed the ID block"},
	{CodeAuthorKey, ClassPolicy, "AUTHOR_KEY_DIGEST", Range{0x110, 48}, "one of the author keys demanded signed the ID key"},
	{CodeFamilyID, ClassPolicy, "FAMILY_ID", Range{0x010, 16}, "the ID block is of the family demanded"},
	{CodeImageID, ClassPolicy, "IMAGE_ID", Range{0x020, 16}, "the ID block is of the image demanded"},
	{CodeGuestSVN, ClassPolicy, "GUEST_SVN", Range{0x004, 4}, "the ID block has at least the version demanded"},

	{CodeHostData, ClassPolicy, "HOST_DATA", Range{0x0c0, 32}, "it is the digest of the launch spec demanded"},
	{CodeVMPL, ClassPolicy, "VMPL", Range{0x030, 4}, "the report was asked for at the privilege level demanded"},
	{CodeDebug, ClassPolicy, "POLICY", Range{0x008, 8}, "DEBUG is clear: the host cannot read or change the guest's memory"},
	{CodeMigration, ClassPolicy, "POLICY", Range{0x008, 8}, "MIGRATE_MA is clear: no migration agent can move the guest"},
	{CodePolicyABI, ClassPolicy, "POLICY", Range{0x008, 2}, "the guest refuses firmware with an older ABI than the one demanded"},
	{CodePolicyBits, ClassPolicy, "POLICY", Range{0x008, 8}, "the bits demanded are set, those forbidden and those unknown are clear"},
	{CodeMigrationAgent, ClassPolicy, "REPORT_ID_MA", Range{0x160, 32}, "the guest has no migration agent, or an accepted one"},

	{CodeAllowedProduct, ClassPolicy, "product", Range{}, "the processor's product is one that is accepted"},
	{CodeAllowedChip, ClassPolicy, "CHIP_ID", Range{0x1a0, 64}, "the chip is on the list"},
	{CodeCSPID, ClassPolicy, "CSP_ID", Range{}, "the VLEK is of a cloud provider that is accepted"},
	{CodePlatform, ClassPolicy, "PLATFORM_INFO", Range{0x040, 8}, "the bits demanded are set, those forbidden are clear"},
	{CodeProvisional, ClassPolicy, "COMMITTED_TCB", Range{0x1e0, 8}, "the firmware is committed: its owner cannot go back to an older one"},
	{CodeReportedTCB, ClassPolicy, "REPORTED_TCB", Range{0x180, 8}, "each level reaches the product's minimum"},
	{CodeCommittedTCB, ClassPolicy, "COMMITTED_TCB", Range{0x1e0, 8}, "the same for the TCB to which a rollback can go"},
	{CodeLaunchTCB, ClassPolicy, "LAUNCH_TCB", Range{0x1f0, 8}, "the same for the TCB at which the guest was launched"},
	{CodeFirmware, ClassPolicy, "CURRENT, COMMITTED", Range{0x1e8, 7}, "the SNP firmware's version, current and committed, reaches the product's minimum"},
	{CodeLaunchMit, ClassPolicy, "LAUNCH_MIT_VECTOR", Range{0x1f8, 8}, "the mitigations demanded were on when the guest was launched"},
	{CodeCurrentMit, ClassPolicy, "CURRENT_MIT_VECTOR", Range{0x200, 8}, "the mitigations demanded are on"},
}

// info returns the catalogue's entry of a code.
func (c Code) info() CheckInfo {
	for _, known := range catalogue {
		if known.Code == c {
			return known
		}
	}
	return CheckInfo{Code: c, Class: ClassSignature} // of the unknown, the worst
}

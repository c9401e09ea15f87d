# Runs twice in the clean root: "unpack", then "compile JOBS VERSION".
set -eu
umask 022

case $1 in
unpack)
	mkdir /build/edk2
	cd /build/edk2
	tar -xf /in/*.orig.tar.* --strip-components=1
	tar -xf /in/*.debian.tar.*
	# Debian's patches in its order, then ours.
	sed -e 's/[[:space:]]*#.*//' -e '/^$/d' debian/patches/series | sed -e 's,^,debian/patches/,' >/build/series
	ls /in/*.patch >>/build/series
	while read -r patch; do
		echo "applying $patch"
		patch --batch --fuzz=0 --strip=1 --input="$patch"
	done </build/series
	;;
compile)
	cd /build/edk2
	make -C BaseTools -j"$2"
	export WORKSPACE=/build/edk2 EDK_TOOLS_PATH=/build/edk2/BaseTools
	export PATH="$EDK_TOOLS_PATH/BinWrappers/PosixLike:$PATH"
	for name in build_rule tools_def target; do
		cp "BaseTools/Conf/$name.template" "Conf/$name.txt"
	done
	# RELEASE leaves out debug prints and assertions. What the platform has switches
	# for is off, most of it by the platform's own choice, which need not last.
	set -- -n "$2" --pcd gEfiMdeModulePkgTokenSpaceGuid.PcdFirmwareVersionString=L"$3 kattest\\0" # as SMBIOS shows it
	set -- "$@" -D BUILD_SHELL=FALSE         # nobody to type commands, which could start what no hash covers
	set -- "$@" -D SOURCE_DEBUG_ENABLE=FALSE # no debugger on the host's serial line
	set -- "$@" -D TPM2_ENABLE=FALSE         # a TPM of QEMU's is the host's
	set -- "$@" -D PVSCSI_ENABLE=FALSE -D MPT_SCSI_ENABLE=FALSE -D LSI_SCSI_ENABLE=FALSE # drivers of devices that no guest of ours has
	build -p OvmfPkg/AmdSev/AmdSevX64.dsc -a X64 -t GCC5 -b RELEASE "$@"
	cp Build/AmdSev/RELEASE_GCC5/FV/OVMF.fd /build/OVMF.fd
	;;
*)
	echo "build.sh: no such step: $1" >&2
	exit 2
	;;
esac

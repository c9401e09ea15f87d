# Runs twice in the clean root: "configure", then "compile JOBS".
set -eu
umask 022

case $1 in
configure)
	cd /build
	tar -xf /in/linux-source-6.12.tar.xz
	cd linux-source-6.12
	for patch in /in/*.patch; do
		echo "applying $patch"
		said=$(patch -p1 -F0 --no-backup-if-mismatch <"$patch") || { echo "$said" >&2; exit 1; }
		# Where lines have moved, someone should look at what moved them.
		case $said in
		*offset* | *fuzz*) printf '%s does not fit exactly:\n%s\n' "$patch" "$said" >&2; exit 1 ;;
		esac
	done
	make tinyconfig
	cat /in/kattest.config >>.config
	make olddefconfig
	cp .config /build/config
	;;
compile)
	cd /build/linux-source-6.12
	make -j"$2" bzImage
	cp arch/x86/boot/bzImage /build/bzImage
	;;
*)
	echo "build.sh: no such step: $1" >&2
	exit 2
	;;
esac

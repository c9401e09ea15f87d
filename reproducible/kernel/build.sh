# Runs twice in the clean root: "configure", then "compile JOBS".
set -eu
umask 022

case $1 in
configure)
	cd /build
	tar -xf /in/linux-source-6.12.tar.xz
	cd linux-source-6.12
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

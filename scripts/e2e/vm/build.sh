#!/usr/bin/env bash
# build.sh - make the test VM out of Debian packages; the last line of stdout is its folder:
#   root.img   ext4, read-only in use        initrd   busybox and the modules that find the root
#   vmlinux    the kernel as ELF, which QEMU starts without unpacking it inside the guest
# Everything is kept in scripts/e2e/cache. Needs root.
set -euo pipefail
cd "$(dirname "$0")"
SUITE=${SUITE:-bookworm} KERNEL=${KERNEL:-linux-image-amd64}
packages=open-iscsi,multipath-tools,sg3-utils,lsscsi,fio,e2fsprogs,util-linux
packages+=,kmod,mount,udev,iproute2,procps,busybox-static
modules="virtio_pci virtio_net virtio_blk virtio_rng qemu_fw_cfg scsi_mod sd_mod sg iscsi_tcp
  dm-mod dm-multipath dm-round-robin dm-service-time dm-queue-length scsi_dh_alua ext4 crc32c_generic"
key=$({ echo "$SUITE $KERNEL $packages" "$modules"; cat build.sh init; } | sha256sum | cut -c1-12)
cache=$(cd .. && pwd)/cache out=$(cd .. && pwd)/cache/vm-$key
mkdir -p "$cache"
exec 9>"$cache/lock"
flock -w 600 9
if [ -e "$out/done" ]; then
  echo "$out"
  exit 0
fi
exec 3>&1 1>&2
start=$SECONDS
[ "$(id -u)" = 0 ] || { echo "build.sh: needs root (it makes a root file system)"; exit 1; }
for tool in mmdebstrap mkfs.ext4 xz zstd; do
  command -v $tool >/dev/null || { echo "build.sh: $tool is missing, see the packages in .ci/run"; exit 1; }
done
image() { apt-cache depends "$KERNEL" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -1; }
[ -n "$(image)" ] || apt-get -qq update
kernel=$(image)
mirror() { apt-get indextargets --format '$(REPO_URI)' | sort -u | grep "$@" | head -1; }
main=$(mirror -v security) security=$(mirror security)
work=$(mktemp -d "$cache/work.XXXXXX") root=$work/root
trap 'rm -rf "$work"' EXIT
mkdir -p "$cache/debs" "$cache/kernel" "$work/out"

# The kernel package is unpacked, not installed.
ls "$cache/kernel/$kernel"_*.deb >/dev/null 2>&1 || (cd "$cache/kernel" && apt-get -q download "$kernel")
dpkg-deb -x "$cache/kernel/$kernel"_*.deb "$work/kernel"
version=$(basename "$work"/kernel/lib/modules/*)

mmdebstrap --quiet --mode=root --variant=essential --include="$packages" --skip=essential/unlink \
  --aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --setup-hook='mkdir -p "$1/var/cache/apt/archives"' --setup-hook="sync-in $cache/debs /var/cache/apt/archives" \
  --customize-hook="sync-out /var/cache/apt/archives $cache/debs" \
  "$SUITE" "$root" "deb $main $SUITE main" "deb $main $SUITE-updates main" "deb $security $SUITE-security main"

# Only the modules that are needed, with what they depend on. crc32c-intel is slower than the generic code
# under TCG.
cp -a "$work/kernel/lib/modules" "$root/lib/"
chroot "$root" depmod "$version"
files() {
  chroot "$root" modprobe -S "$version" -a --show-depends "$@" 2>/dev/null |
    awk '/^insmod/ && !/crc32c-intel/ && !seen[$2]++ { print $2 }'
}
keep=$(files $modules) boot=$(files virtio_pci virtio_blk ext4 crc32c_generic)
mkdir -p "$work/initrd"/{bin,dev,mnt,modules}
n=10
for m in $boot; do
  cp "$root/$m" "$work/initrd/modules/$n-$(basename "$m")"
  n=$((n + 1))
done
find "$work/initrd/modules" -name '*.xz' -exec xz -d {} +
(cd "$root" && tar cf "$work/keep.tar" $(printf '.%s ' $keep) ./lib/modules/"$version"/modules.{order,builtin,builtin.modinfo})
rm -rf "$root/lib/modules"
tar xf "$work/keep.tar" -C "$root"
chroot "$root" depmod "$version"

install -m755 init "$root/vm-init"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/boot/* "$root"/var/log/*
size=$(($(du -sm --apparent-size "$root" | cut -f1) * 11 / 10 + 96))
mkfs.ext4 -q -O ^has_journal -m0 -E root_owner=0:0 -d "$root" "$work/out/root.img" "${size}M"

cp "$root/bin/busybox" "$work/initrd/bin/"
cat >"$work/initrd/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for m in /modules/*; do /bin/busybox insmod $m; done
/bin/busybox mount -t ext4 -o noatime /dev/vda /mnt
exec /bin/busybox switch_root /mnt /vm-init
INIT
chmod +x "$work/initrd/init"
(cd "$work/initrd" && find . | "$root/bin/busybox" cpio -o -H newc 2>/dev/null) >"$work/out/initrd"

# The ELF kernel lies in the bzImage, compressed: its place is in the header (Documentation/x86/boot.rst).
z=$work/kernel/boot/vmlinuz-$version
number() { od -An -t"u$2" -j"$1" -N"$2" "$z" | tr -d ' '; }
offset=$((($(number 0x1f1 1) + 1) * 512 + $(number 0x248 4)))
tail -c +$((offset + 1)) "$z" | head -c $(($(number 0x24c 4) - 4)) >"$work/payload" || true
case $(od -An -tx1 -N4 "$work/payload" | tr -d ' ') in
  fd377a58) xz -dc "$work/payload" >"$work/out/vmlinux" ;;
  28b52ffd) zstd -qdc "$work/payload" >"$work/out/vmlinux" ;;
  *) echo "build.sh: unknown compression of $z"; exit 1 ;;
esac
rm -rf "$out" "$cache"/vm-*
touch "$work/out/done"
mv "$work/out" "$out"
echo "build.sh: kernel $version, $((SECONDS - start)) s"
echo "$out" >&3

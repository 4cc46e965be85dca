#!/bin/bash
# again.sh PORTAL IQN LUN - the files that basic.sh left on the disk are there with their checksums.
set -euo pipefail
portal=$1 iqn=$2 lun=$3
iscsiadm -m discovery -t sendtargets -p "$portal"
iscsiadm -m node -T "$iqn" -p "$portal" --login
d=
for _ in $(seq 100); do
  for p in /dev/disk/by-path/*-iscsi-"$iqn"-lun-"$lun"; do [ -b "$p" ] && d=$(readlink -f "$p"); done
  [ -n "$d" ] && break
  sleep .1
done
[ -n "$d" ] || { echo "no disk for $iqn LUN $lun"; exit 1; }
e2fsck -fn "$d"
mount -o ro,noatime "$d" /mnt
(cd /mnt && sha256sum -c sums)
umount /mnt
iscsiadm -m node -T "$iqn" -p "$portal" --logout

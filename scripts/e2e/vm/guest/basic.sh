#!/bin/bash
# basic.sh PORTAL IQN LUN - what a host does with a disk: discovery, login, ext4, files, fio, fstrim, logout.
set -euo pipefail
portal=$1 iqn=$2 lun=$3
step() { read -r up _ </proc/uptime; echo "--- [$up] $*"; }
disk() { # the disk appears some time after the login returned
  for _ in $(seq 100); do
    for d in /dev/disk/by-path/*-iscsi-"$iqn"-lun-"$lun"; do [ -b "$d" ] && readlink -f "$d" && return; done
    sleep .1
  done
  echo "no disk for $iqn LUN $lun" >&2
  return 1
}

step discovery
iscsiadm -m discovery -t sendtargets -p "$portal"
step login
iscsiadm -m node -T "$iqn" -p "$portal" --login
d=$(disk)
step "$d"
lsblk -o NAME,SIZE,VENDOR,MODEL,LOG-SEC,PHY-SEC,DISC-MAX,DISC-GRAN,TRAN "$d"
sg_inq "$d" | head -20
sg_vpd -p di "$d"
sg_vpd -p lbpv "$d"
sg_readcap -16 "$d"
[ "$(lsblk -bndo DISC-MAX "$d")" -gt 0 ] || { echo "the disk offers no discard"; exit 1; }

step mkfs.ext4
mkfs.ext4 -q -F "$d"
mount -o noatime "$d" /mnt
step files
for i in 1 2 3 4; do dd if=/dev/urandom of=/mnt/file$i bs=1M count=4 status=none; done
(cd /mnt && sha256sum file? >sums)
sync
step fio
fio --name=verify --directory=/mnt --size=24m --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 \
  --verify=crc32c --verify_fatal=1 --end_fsync=1 | grep -E 'IOPS|err='
step fstrim
dd if=/dev/urandom of=/mnt/big bs=1M count=64 status=none
sync
sleep 2
rm /mnt/big /mnt/verify*
sync
fstrim -v /mnt
step fsck
umount /mnt
e2fsck -fn "$d"
mount "$d" /mnt
(cd /mnt && sha256sum -c sums)
umount /mnt
step logout
iscsiadm -m node -T "$iqn" -p "$portal" --logout
if dmesg | grep -E 'I/O error|Buffer I/O|EXT4-fs error|detected conn error'; then exit 1; fi
step done

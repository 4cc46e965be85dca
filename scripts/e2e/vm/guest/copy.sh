#!/bin/bash
# copy.sh PORTAL IQN LUN LUN - a copy from disk to disk that the target makes: sg_xcopy and what it asks for.
set -euo pipefail
portal=$1 iqn=$2 from=$3 to=$4
step() { read -r up _ </proc/uptime; echo "--- [$up] $*"; }
disk() {
  for _ in $(seq 100); do
    for d in /dev/disk/by-path/*-iscsi-"$iqn"-lun-"$1"; do [ -b "$d" ] && readlink -f "$d" && return; done
    sleep .1
  done
  echo "no disk for $iqn LUN $1" >&2
  return 1
}
sum() { dd if="$1" bs=1M skip="$2" count=8192000 iflag=direct,skip_bytes,count_bytes status=none | sha256sum; }

step login
iscsiadm -m discovery -t sendtargets -p "$portal"
iscsiadm -m node -T "$iqn" -p "$portal" --login
a=$(disk "$from") b=$(disk "$to")
step "$a $b"
sg_vpd -p tpc "$a"
sg_copy_results --params "$a"
dd if=/dev/urandom of="$a" bs=1M count=8 oflag=direct status=none
for where in --on_src --on_dst; do
  step "sg_xcopy $where"
  sg_xcopy $where if="$a" of="$b" bs=512 skip=8 seek=2048 count=16000
  [ "$(sum "$a" 4096)" = "$(sum "$b" 1048576)" ] || { echo "other data"; exit 1; }
  dd if=/dev/zero of="$b" bs=1M count=16 oflag=direct status=none
done
step logout
iscsiadm -m node -T "$iqn" -p "$portal" --logout
step done

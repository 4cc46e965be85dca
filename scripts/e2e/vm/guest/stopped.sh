#!/bin/bash
# stopped.sh PORTAL IQN - a host in the middle of its I/O on LUN 0 gets LUN 1, then its gateway is stopped and started, then
# it gets LUN 2. It never looks for LUNs by itself. Each disk must come, and no I/O may fail or read something else.
set -euo pipefail
portal=$1 iqn=$2
iscsiadm -m node -o new -T "$iqn" -p "$portal"
iscsiadm -m node -T "$iqn" -p "$portal" --login
disk() {
  local p
  for p in /dev/disk/by-path/*-iscsi-"$iqn"-lun-"$1"; do [ -b "$p" ] && readlink -f "$p" && return; done
  return 1
}
for _ in $(seq 100); do disk 0 >/dev/null && break; sleep .1; done
d=$(disk 0)
head -c 1M /dev/urandom >/run/data
seen=
for round in $(seq 900); do
  dd if=/run/data of="$d" bs=64k seek=$((round % 32 * 16)) oflag=direct conv=notrunc status=none
  dd if="$d" bs=64k skip=$((round % 32 * 16)) count=16 iflag=direct status=none | cmp - /run/data
  for lun in 1 2; do
    if [[ $seen != *$lun* ]] && disk $lun >/dev/null; then echo "LUN $lun after $round rounds of I/O" && seen=$seen$lun; fi
  done
  [ "$seen" = 12 ] && break
  sleep .1
done
[ "$seen" = 12 ] || { echo "LUNs that came: $seen"; iscsiadm -m session -P3; dmesg | tail -20; exit 1; }
dmesg | grep -E 'I/O error|Buffer I/O' && exit 1
iscsiadm -m session -u

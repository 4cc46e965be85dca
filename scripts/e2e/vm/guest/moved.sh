#!/bin/bash
# moved.sh PORTAL IQN LUN OTHERPORTAL - a host in the middle of its I/O is asked to leave PORTAL, and goes on at OTHERPORTAL.
set -euo pipefail
portal=$1 iqn=$2 lun=$3 other=$4
iscsiadm -m node -o new -T "$iqn" -p "$portal"
iscsiadm -m node -T "$iqn" -p "$portal" --login
d=
for _ in $(seq 100); do
  for p in /dev/disk/by-path/*-iscsi-"$iqn"-lun-"$lun"; do [ -b "$p" ] && d=$(readlink -f "$p"); done
  [ -n "$d" ] && break
  sleep .1
done
[ -n "$d" ] || { echo "no disk for $iqn LUN $lun"; exit 1; }
current() { iscsiadm -m session -P1 2>/dev/null | sed -n 's/.*Current Portal: *\([^,]*\),.*/\1/p'; }
head -c 1M /dev/urandom >/run/data
moved=
for round in $(seq 600); do
  dd if=/run/data of="$d" bs=64k seek=$((round % 32 * 16)) oflag=direct conv=notrunc status=none
  dd if="$d" bs=64k skip=$((round % 32 * 16)) count=16 iflag=direct status=none | cmp - /run/data
  if [ "$(current)" = "$other" ]; then moved=$round && break; fi
  sleep .1
done
[ -n "$moved" ] || { echo "still at $(current)"; iscsiadm -m session -P1; dmesg | tail -20; exit 1; }
echo "moved to $other after $moved rounds of I/O"
dd if=/run/data of="$d" bs=64k oflag=direct conv=notrunc status=none
dd if="$d" bs=64k count=16 iflag=direct status=none | cmp - /run/data
iscsiadm -m session -u

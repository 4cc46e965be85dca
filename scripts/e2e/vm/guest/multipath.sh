#!/bin/bash
# multipath.sh PORTAL IQN - dm-multipath over all portals of a target, with one configuration after the other. In each of them the
# portal in use is lost under load, and comes back; somebody else stops it and starts it again, at
#   @@@ stop HOST:PORT     @@@ start HOST:PORT
# Between "@@@ NAME" and "@@@" stands what "multipath -ll" says, and the target port groups as the path in use reports them. No
# write may fail or be lost.
set -eEuo pipefail
trap 'echo "line $LINENO: $BASH_COMMAND"' ERR
portal=$1 iqn=$2
step() { read -r up _ </proc/uptime; echo "--- [$up] $*"; }
tell() { # NAME: the topology
  echo "@@@ $1"
  multipath -ll
  sg_rtpg -d "/dev/$(inuse)" || true
  echo "@@@"
}
# configure LINE…: for the volumes. greedy keeps udev from reading the paths themselves.
configure() {
  {
    printf 'defaults {\n  find_multipaths greedy\n  polling_interval 1\n  max_polling_interval 2\n}\n'
    printf 'devices {\n  device {\n    vendor "ASHLAR"\n    product "VOL"\n'
    printf '    %s\n' "$@"
    printf '  }\n}\n'
  } >/etc/multipath.conf
}
# await SECONDS STATE…: the paths are so, in any order: "ready:PRIORITY" or "failed"
await() {
  local limit=$1 want now held=0
  shift
  want=$(printf '%s\n' "$@" | sort | xargs)
  for _ in $(seq $((limit * 4))); do
    now=$(multipathd show paths raw format '%t %T %p' | awk '{ print $1 == "active" ? $2 ":" $3 : $1 }' | sort | xargs) || true
    if [ "$now" = "$want" ]; then held=$((held + 1)); else held=0; fi
    [ "$held" = 4 ] && return # for 1 s
    sleep .25
  done
  echo "the paths are: $now, want: $want"
  multipath -ll
  return 1
}
inuse() { # the disk of the path group in use
  multipath -ll | awk '/status=/ { on = /status=active/ } on && match($0, / sd[a-z]+ /) { print substr($0, RSTART + 1, RLENGTH - 2); exit }'
}
address() { # of the portal that a disk is behind
  local session
  session=$(readlink -f "/sys/block/$1/device" | grep -o 'session[0-9]*')
  local c=/sys/class/iscsi_connection/connection${session#session}:0
  echo "$(cat "$c/persistent_address"):$(cat "$c/persistent_port")"
}
written() { awk '{ print $5 }' "/sys/block/$(basename "$(readlink -f "$map")")/stat"; }
progress() { # NAME: writes go on
  local from
  from=$(written)
  for _ in $(seq 120); do
    [ "$(written)" -gt $((from + 50)) ] && return
    sleep .25
  done
  echo "$1: writes do not go on"
  return 1
}

# load NAME: files with checksums, by dd and fio, until there is enough.
load() {
  local i=0
  rm -f /run/enough
  (
    set -e
    while [ ! -e /run/enough ]; do
      head -c 256k /dev/urandom >/run/piece
      dd if=/run/piece of=/mnt/"$1".$i bs=64k oflag=direct conv=fsync status=none
      (cd /run && sha256sum piece) | sed "s/piece/$1.$i/" >>/run/sums
      i=$((i + 1))
      sleep .1
    done
    echo "$1: $i files"
  ) &
  dd=$!
  fio --name="$1" --directory=/mnt --size=4m --rw=randwrite --bs=4k --iodepth=4 --ioengine=libaio --direct=1 --fsync=64 \
    --verify=crc32c --verify_fatal=1 --rate_iops=80 --eta=never --output=/run/fio &
  fio=$!
}
loaded() { # NAME
  touch /run/enough
  wait $dd || { echo "$1: dd failed"; return 1; }
  wait $fio || { cat /run/fio; return 1; }
  grep -E 'IOPS|err=' /run/fio
}

# lose NAME: the portal in use goes and comes back under load. The priorities are those of ALUA: 50 the optimized path, 10 another.
lose() {
  local disk gone
  load "$1"
  progress "$1"
  disk=$(inuse)
  gone=$(address "$disk")
  step "$1: $disk at $gone"
  echo "@@@ stop $gone"
  for _ in $(seq 120); do [ "$(inuse)" != "$disk" ] && break; sleep .25; done
  progress "$1 on the other path"
  step "$1: goes on at $(address "$(inuse)")"
  await 60 failed ready:50
  tell "$1 with a path lost"
  echo "@@@ start $gone"
  await 60 ready:50 ready:10
  step "$1: $gone is back"
  progress "$1 on both paths"
  tell "$1 with the path back"
  loaded "$1"
}

modprobe -a dm-multipath dm-service-time dm-queue-length dm-round-robin scsi_dh_alua
mkdir -p /etc/multipath
configure
iscsiadm -m discovery -t sendtargets -p "$portal"
iscsiadm -m node -T "$iqn" --login
for _ in $(seq 100); do
  disks=$(echo /sys/class/iscsi_session/*/device/target*/*/block/sd*)
  [ "$(wc -w <<<"$disks")" = 2 ] && break
  sleep .1
done
udevadm settle --timeout 30
multipathd
map=
for _ in $(seq 160); do
  map=$(multipath -l -v1 | head -1)
  [ -b "/dev/mapper/$map" ] && break
  sleep .25
done
map=/dev/mapper/$map
[ -b "$map" ] || { echo "no map"; multipathd show paths; exit 1; }
udevadm settle --timeout 30
await 60 ready:50 ready:10
tell default
step mkfs
mkfs.ext4 -q "$map"
mount -o noatime "$map" /mnt
lose default

configure 'prio alua' 'path_grouping_policy failover' 'path_checker tur' 'failback immediate' 'no_path_retry 24'
multipathd reconfigure
await 60 ready:50 ready:10
tell documented
lose documented

# All paths in one group: the commands of the host go through both gateways by turns.
configure 'path_grouping_policy multibus' 'path_selector "queue-length 0"' 'no_path_retry 24'
multipathd reconfigure
await 60 ready:50 ready:10
for _ in $(seq 40); do [ "$(multipath -ll | grep -c policy=)" = 1 ] && break; sleep .25; done
tell multibus
load multibus
progress multibus
gone=$(address "$(inuse)")
step "multibus: $gone"
echo "@@@ stop $gone"
await 60 failed ready:50
progress "multibus on one path"
echo "@@@ start $gone"
await 60 ready:50 ready:10
step "multibus: $gone is back"
progress "multibus on both paths"
loaded multibus

configure 'prio alua' 'path_grouping_policy failover' 'no_path_retry 24'
multipathd reconfigure
step check
umount /mnt
e2fsck -fn "$map"
mount -o noatime "$map" /mnt
(cd /mnt && sha256sum --quiet -c /run/sums)
umount /mnt
multipath -f "${map##*/}"
iscsiadm -m node -T "$iqn" --logout
if dmesg | grep -E 'Buffer I/O error|I/O error, dev dm-|EXT4-fs (error|warning)'; then exit 1; fi
step done

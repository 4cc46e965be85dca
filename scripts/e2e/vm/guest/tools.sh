#!/bin/bash
# tools.sh PORTAL IQN COMMAND… - run each COMMAND over LUN 0 and LUN 1, and print for each one
#   @@@ N STATUS
# behind its output. They share the directory /run/tools, where they are run, and find the disks in $a (LUN 0), $b (LUN 1), and
# $a2 (LUN 0 in a second session, which has an I_T nexus of its own).
set -euo pipefail
portal=$1 iqn=$2
shift 2
disk() { # SESSION LUN: the disk appears some time after the login returned
  local d
  for _ in $(seq 100); do
    for d in /sys/class/iscsi_session/"$1"/device/target*/*:"$2"/block/sd*; do
      if [ -b "/dev/${d##*/}" ]; then
        echo "/dev/${d##*/}"
        return
      fi
    done
    sleep .1
  done
  echo "no disk for LUN $2 of $1" >&2
  return 1
}
iscsiadm -m node -o new -T "$iqn" -p "$portal"
iscsiadm -m node -T "$iqn" -p "$portal" -o update -n node.session.nr_sessions -v 2
iscsiadm -m node -T "$iqn" -p "$portal" --login
a=$(disk session1 0) b=$(disk session1 1) a2=$(disk session2 0)
udevadm settle --timeout 20
udevadm control --exit # it reads a disk that somebody has written to, and so takes unit attentions away
export a b a2
mkdir /run/tools
cd /run/tools
n=0
for command; do
  status=0
  timeout 60 bash -euo pipefail -c "$command" >/run/output 2>&1 || status=$?
  cat /run/output
  echo
  echo "@@@ $n $status"
  n=$((n + 1))
done
iscsiadm -m node -T "$iqn" -p "$portal" --logout

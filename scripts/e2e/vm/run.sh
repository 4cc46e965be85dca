#!/usr/bin/env bash
# run.sh [options] SCRIPT [ARGS…] - boot the VM, run SCRIPT in it as root, exit with its status.
#   --timeout S      default 300; then the VM is killed and the status is 124
#   --accel tcg|kvm  default tcg       --smp N   default 2       --mem MB   default 768
#   --verbose        kernel messages on the console
# The status is 125 when the VM ended without reporting one. Changes to the image are dropped.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
accel=tcg smp=2 mem=768 limit=300 log=4
while [[ ${1-} == --* ]]; do
  case $1 in
    --accel) accel=$2; shift ;;
    --smp) smp=$2; shift ;;
    --mem) mem=$2; shift ;;
    --timeout) limit=$2; shift ;;
    --verbose) log=7 ;;
    *) sed -n '2,/^# The status/s/^# \?//p' "$0"; exit 125 ;;
  esac
  shift
done
script=${1-}
[ -r "$script" ] || { echo "run.sh: no script ${script:-given}" >&2; exit 125; }
shift
image=$("$here/build.sh") || exit 125
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
printf '%q ' "$@" >"$tmp/args"
case $accel in
  tcg) machine=(-accel tcg,thread=multi -cpu Nehalem) ;;
  kvm) machine=(-accel kvm -cpu host) ;;
esac
kernel="console=ttyS0 loglevel=$log panic=-1 net.ifnames=0 nokaslr mitigations=off nowatchdog random.trust_cpu=on tsc=reliable"
timeout -k 5 "$limit" qemu-system-x86_64 -M q35 "${machine[@]}" -smp "$smp" -m "$mem" \
  -nodefaults -no-user-config -display none -no-reboot \
  -kernel "$image/vmlinux" -initrd "$image/initrd" -append "$kernel" \
  -drive "file=$image/root.img,format=raw,if=virtio,snapshot=on" \
  -netdev user,id=n0,net=10.0.2.0/24,host=10.0.2.2 -device virtio-net-pci,netdev=n0,romfile= -device virtio-rng-pci \
  -chardev stdio,id=console,signal=off -serial chardev:console -serial "file:$tmp/status" \
  -fw_cfg "name=opt/ashlar/script,file=$script" -fw_cfg "name=opt/ashlar/args,file=$tmp/args" </dev/null &
vm=$!
trap 'kill $vm 2>/dev/null' TERM INT
wait $vm
ended=$?
while kill -0 $vm 2>/dev/null; do wait $vm; ended=$?; done
status=$(tr -dc 0-9 <"$tmp/status" 2>/dev/null)
rm -rf "$tmp"
[ -n "$status" ] && exit "$status"
case $ended in
  124 | 137) echo "run.sh: the VM was killed after $limit s" >&2; exit 124 ;;
esac
echo "run.sh: the VM ended without a status (qemu: $ended)" >&2
exit 125

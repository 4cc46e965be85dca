#!/bin/bash
# chap.sh PORTAL IQN LUN USER SECRET [MUTUALUSER MUTUALSECRET] - only the right secrets get in.
set -uo pipefail
portal=$1 iqn=$2 user=$4 secret=$5 muser=${6-} msecret=${7-} bad=0
node() { iscsiadm -m node -T "$iqn" -p "$portal" "$@"; }
set_auth() {
  local kv
  for kv in "$@"; do node -o update -n "node.session.auth.${kv%%=*}" -v "${kv#*=}"; done
}
refused() {
  if timeout 30 iscsiadm -m node -T "$iqn" -p "$portal" --login >/run/login 2>&1; then
    echo "FAIL: logged in $1"
    bad=1
    node --logout
  else
    echo "refused $1: $(grep -m1 -oE 'status [0-9]+|non-retryable.*|authorization failure' /run/login | head -1)"
  fi
}
accepted() {
  if node --login; then echo "accepted $1"; node --logout; else echo "FAIL: refused $1"; bad=1; fi
}

iscsiadm -m node -o new -T "$iqn" -p "$portal" || exit 1
node -o update -n node.session.initial_login_retry_max -v 1
node -o update -n node.conn[0].timeo.login_timeout -v 10
refused "without CHAP"
set_auth authmethod=CHAP username="$user" password=wrong-secret-1
if [ -n "$muser" ]; then set_auth username_in="$muser" password_in="$msecret"; fi
refused "with a wrong secret"
set_auth username=somebody password="$secret"
refused "with a wrong user"
set_auth username="$user" password="$secret"
accepted "with the right secret"
if [ -n "$muser" ]; then
  set_auth password_in=wrong-secret-2
  refused "when the target does not know its own secret"
  set_auth password_in="$msecret"
  accepted "with both secrets again"
fi
exit $bad

#!/usr/bin/env bash
# fuzz.sh TIME REGEXP - run every fuzz target whose "package.Name" matches for TIME; stop at the first crash.
# A crasher is written to testdata/fuzz/NAME of its package: commit it with the fix.
# GOFLAGS=-parallel=1 leaves other cores alone. What is interesting is made shorter in a bounded number of tries: the
# default is a minute for each, which takes all the time of targets that find much.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s} want=${2:-.} n=0
while IFS=: read -r file name; do
  dir=./$(dirname "$file")
  [[ $dir.$name =~ $want ]] || continue
  n=$((n + 1))
  echo "--- $dir $name"
  go test -tags invariants -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 200x "$dir"
done < <(grep -rnoE --include='*_test.go' '^func (Fuzz[A-Za-z0-9_]+)\(' . |
  sed -E 's/^\.\/([^:]+):[0-9]+:func (Fuzz[A-Za-z0-9_]+)\(/\1:\2/' | sort)
echo "$n fuzz targets, no crash"
[ "$n" -gt 0 ]

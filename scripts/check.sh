#!/usr/bin/env bash
# check.sh - the quick check before a commit: format, vet, lint and unit tests of the packages that differ
# from BASE (default: the upstream branch if there is one, else the last commit), new files included.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/bin/tools:$PATH"
base=${BASE:-$(git merge-base HEAD '@{upstream}' 2>/dev/null || git rev-parse HEAD)}
mapfile -t files < <({ git diff --name-only --diff-filter=d "$base"; git ls-files -o --exclude-standard; } | grep '\.go$' | sort -u)
echo "check: ${#files[@]} Go files differ from $base"
go test ./scripts/lint -skip '^Test(Vet|ModTidy|Generated)$'
[ ${#files[@]} -gt 0 ] || exit 0
mapfile -t dirs < <(printf './%s\n' "${files[@]}" | xargs -n1 dirname | grep -v /testdata | sort -u)
go vet -tags invariants,e2e "${dirs[@]}"
golangci-lint run --build-tags invariants,e2e "${dirs[@]}"
go test -race -shuffle=on -tags invariants -timeout 5m "${dirs[@]}"

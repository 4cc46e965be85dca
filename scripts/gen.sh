#!/usr/bin/env bash
# gen.sh [OUT] - make the Go code of api/*/v1/*.proto below OUT (default: the repository itself).
# The versions of the plugins are those of the Makefile (make tools); protoc is Debian's protobuf-compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-.}
command -v protoc >/dev/null || { echo "gen.sh: install protoc (apt-get install protobuf-compiler)" >&2; exit 1; }
PATH="$PWD/bin/tools:$PATH:$(go env GOPATH)/bin"
for p in protoc-gen-go protoc-gen-go-grpc; do
  command -v "$p" >/dev/null || { echo "gen.sh: install $p (make tools)" >&2; exit 1; }
done
mkdir -p "$out"
protoc -I . --go_out="$out" --go_opt=paths=source_relative \
  --go-grpc_out="$out" --go-grpc_opt=paths=source_relative api/*/v1/*.proto

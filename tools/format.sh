#!/usr/bin/env bash
# Is every tracked C++ file as clang-format leaves it? With --fix, makes it so.
#
#   tools/format.sh [--fix] [file...]
set -euo pipefail

mode=(--dry-run --Werror)
if [ "${1:-}" = --fix ]; then
  mode=(-i)
  shift
fi
here=$PWD
cd "$(dirname "$0")/.."

# Debian 12's version; others break lines at other places.
version=14
for formatter in "clang-format-$version" clang-format; do
  if command -v "$formatter" >/dev/null && "$formatter" --version | grep -q "version $version\."; then
    break
  fi
  formatter=
done
if [ -z "$formatter" ]; then
  echo "format: clang-format $version is needed: apt-get install clang-format-$version" >&2
  exit 2
fi

if [ $# -gt 0 ]; then
  cd "$here"
  printf '%s\0' "$@"
else
  git ls-files -z -- '*.cc' '*.h'
fi | xargs -0 -r -n 64 "$formatter" "${mode[@]}"

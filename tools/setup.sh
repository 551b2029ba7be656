#!/usr/bin/env bash
# Installs the Debian packages listed in the given file that are missing. Does nothing when all are there.
set -euo pipefail
list=$1
wanted=$(grep -v '^ *\(#\|$\)' "$list")
missing=$(comm -23 <(sort -u <<<"$wanted") \
  <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^ii  *//p' | sort -u))
[ -n "$missing" ] || exit 0

echo "installing: $(echo $missing)"
sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "setup: these packages need root to install: $(echo $missing)" >&2; exit 1; }
  sudo=sudo
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive \
       apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "setup: apt-get could not install the packages above" >&2
  exit 1
fi

#!/usr/bin/env bash
# Collectives between two hosts, imitated by network namespaces, over a link of a known rate: what
# share of the line they use.
#
#   bench/link.sh [program, default build/release/trireme] [Mbit/s, default 1000] [options of bench comm]
#
# Needs root, ip and tc. A row per operation: payload on the busiest way of the link over its rate.
# Headers take some of the line: with frames of 1500 bytes at most 95.6 % is payload. The namespaces
# have names of their own and are removed at the end.
set -euo pipefail
program=${1:-build/release/trireme}
mbit=${2:-1000}
shift $(($# < 2 ? $# : 2))
options=("$@")
[ ${#options[@]} -gt 0 ] || options=(--bytes 64MiB --seconds 5)

[ "$(id -u)" = 0 ] || { echo "link.sh: network namespaces need root" >&2; exit 2; }
[ -x "$program" ] || { echo "link.sh: no program at $program; build it with: make build" >&2; exit 2; }

name=trireme-link-$$
trap 'for h in 0 1; do ip netns del $name-$h 2>/dev/null || true; done' EXIT
for h in 0 1; do ip netns add $name-$h; done
ip link add link0 netns $name-0 mtu 1500 type veth peer name link1 netns $name-1 mtu 1500
for h in 0 1; do
  ip -n $name-$h address add 10.77.0.$((h + 1))/24 dev link$h
  ip -n $name-$h link set lo up
  ip -n $name-$h link set link$h up
  tc -n $name-$h qdisc add dev link$h root tbf rate "${mbit}mbit" burst 256kb latency 20ms
done

rank() {
  ip netns exec $name-"$1" env TRIREME_RANK="$1" TRIREME_WORLD_SIZE=2 TRIREME_LOCAL_RANK=0 \
    TRIREME_LOCAL_SIZE=1 TRIREME_ADDRESS=10.77.0.1 TRIREME_PORT=29555 TRIREME_SECRET=$name \
    timeout 300 "$program" bench comm --engine gloo --json "${options[@]}"
}
rank 1 &
rank 0 | awk -v mbit="$mbit" '
  function value(key) { match($0, "\"" key "\": *[^,}]*"); v = substr($0, RSTART, RLENGTH);
                        sub(/^[^:]*: */, "", v); gsub(/"/, "", v); return v }
  { printf "%-16s %12s bytes  %10.1f us  %6.1f %% of the line\n", value("op"), value("bytes"),
           value("median_us"), value("bus_gb_per_s") * 8e5 / mbit }'
wait

#!/usr/bin/env bash
# run_ranks.sh N PROGRAM: runs N ranks of the program with the environment that torchrun sets; prints what
# they print on stdout. A failing rank prints a line of its own, so that a comparison of the output fails.
set -u
ranks=$1
program=$2
if [ "$ranks" = 1 ]; then exec "$program" 2>/dev/null; fi
port=$((20000 + $$ % 10000))
pids=()
for ((rank = 0; rank < ranks; ++rank)); do
  RANK=$rank WORLD_SIZE=$ranks LOCAL_RANK=$rank LOCAL_WORLD_SIZE=$ranks \
    MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$program" 2>/dev/null &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || echo "a rank failed"; done

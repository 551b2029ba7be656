#!/usr/bin/env bash
# Trains a small GPT on real text with two data-parallel workers, checks that it learned, lets it write.
#   DATA=folder   text to train on (default: the C++ headers of this machine)
#   OUT=folder    where the run goes (default: a new folder under runs/)
set -euo pipefail
trireme=$1
data=${DATA:-/usr/include}
out=${OUT:-}
if [ -z "$out" ]; then
  n=1
  while [ -e "runs/demo-$n" ]; do n=$((n + 1)); done
  out=runs/demo-$n
fi

"$trireme" train examples/demo.yaml data.text="$data" out="$out" --workers 2
echo
echo "A sample of what it writes (trireme generate $out):"
echo "--------------------------------------------------------------------------------"
"$trireme" generate "$out" --tokens 160 --temperature 0.7 --top-k 50 --seed 3
echo "--------------------------------------------------------------------------------"
echo "The run is in $out: metrics.jsonl, summary.json, checkpoints, TensorBoard events."

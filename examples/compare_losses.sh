#!/usr/bin/env bash
# compare_losses.sh SOURCE PROGRAM: runs the program with 1, 2 and 4 workers. All must print the same text, and that
# is the text indented in the source's header comment, but that numbers may be 0.002 off: other vector units and
# matrix libraries round otherwise.
set -euo pipefail
alone=$("$2" 1)
for workers in 2 4; do
  diff <(echo "$alone") <("$2" $workers) || { echo "$workers workers print something else (>)"; exit 1; }
done
expected=$(sed -n '/^#include/q; s,^//   ,,p' "$1")
paste -d '\n' <(echo "$expected") <(echo "$alone") | awk '
  NR % 2 { split($0, words); count = NF; next }
  NF != count { bad = 1 }
  { for (i = 1; i <= NF; ++i)
      if ($i != words[i] && ($i !~ /^[0-9.]+$/ || $i - words[i] > 0.002 || words[i] - $i > 0.002)) bad = 1 }
  END { exit bad }' || { diff <(echo "$expected") <(echo "$alone"); exit 1; }

#!/usr/bin/env bash
# clang-tidy with the checks of .clang-tidy, on what a change touches.
#
#   tools/tidy.sh                     files that differ from the branch main
#   tools/tidy.sh --all               every file of the preset
#   tools/tidy.sh file...             these; a header is checked through the files that include it
#   PRESET=dev BASE=HEAD~3 tools/tidy.sh
#
# PRESET (default release) must be configured: cmake --preset release.
set -euo pipefail
cd "$(git -C "$(dirname "$0")" rev-parse --show-toplevel)"
preset=${PRESET:-release}
base=${BASE:-main}
database=build/$preset/compile_commands.json

runner=$(command -v run-clang-tidy-14 || command -v run-clang-tidy) || {
  echo "tidy: clang-tidy 14 is needed: apt-get install clang-tidy-14" >&2
  exit 2
}
if [ ! -f "$database" ]; then
  echo "tidy: $database is missing: cmake --preset $preset" >&2
  exit 2
fi

if [ "${1:-}" = --all ]; then
  files=(trireme tests examples)
elif [ $# -gt 0 ]; then
  files=("$@")
else
  # Committed, changed and new files alike.
  mapfile -t files < <({ git diff --name-only --diff-filter=d "$(git merge-base "$base" HEAD)" -- '*.cc' '*.h'
                         git ls-files --others --exclude-standard -- '*.cc' '*.h'; } | sort -u)
fi

# Sources stand for themselves, headers for the sources that include them.
patterns=()
for file in "${files[@]}"; do
  if [ -d "$file" ]; then
    patterns+=("^$PWD/${file%/}/")
  elif [[ $file == *.h ]]; then
    while read -r source; do
      patterns+=("^$PWD/$source\$")
    done < <(git grep -l -F "#include \"$file\"" -- '*.cc' || true)
  else
    patterns+=("^$PWD/$file\$")
  fi
done
if [ ${#patterns[@]} = 0 ]; then
  echo "tidy: nothing to check"
  exit 0
fi
mapfile -t patterns < <(printf '%s\n' "${patterns[@]}" | sort -u)
# Clang can use neither GCC's precompiled headers nor the names of GCC's warnings.
mkdir -p "build/$preset/tidy"
sed -E 's/ -Winvalid-pch -include [^ ]+cmake_pch\.hxx//g' "$database" > "build/$preset/tidy/compile_commands.json"
"$runner" -quiet -p "build/$preset/tidy" -extra-arg=-Wno-unknown-warning-option -j "${JOBS:-$(nproc)}" "${patterns[@]}"

#!/usr/bin/env bash
# Builds and strips what a GPU machine needs to run everything, into target/carry (which git ignores):
#
#     benches/compare/gpu/carry.sh [TOKENIZER_DIR IMDB_DIR]
#
# vitrine, every test binary called `device`, these scripts, and run.sh, which runs it all there. With a tokenizer's folder and
# IMDB's parquet files it carries a sample of them too (sample.py: PYTHON, default python3, needs pyarrow and tokenizers for it),
# for the rows on real texts. The whole must stay under 60 MiB.
set -euo pipefail
cd "$(dirname "$0")/../../.."
limit_mib=60
carry=target/carry

if [[ $# != 0 && $# != 2 ]]; then
    echo "usage: carry.sh [TOKENIZER_DIR IMDB_DIR]" >&2
    exit 2
fi
for tool in cargo python3 strip; do
    command -v "$tool" >/dev/null || { echo "$tool is not on the PATH: install it, it is needed here" >&2; exit 1; }
done

# Runs cargo with the given arguments and prints the paths of the executables of the target's name ($1).
executables() {
    local name=$1
    shift
    cargo "$@" --release --locked --message-format=json-render-diagnostics | python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "$name"
}

# The packages that have a test target `device`: those that run on a GPU.
packages_with_device_tests() {
    cargo metadata --no-deps --locked --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    if any(target["name"] == "device" and "test" in target["kind"] for target in package["targets"]):
        print(package["name"])'
}

rm -rf "$carry"
mkdir -p "$carry/tests" "$carry/compare/gpu"

strip -o "$carry/vitrine" "$(executables vitrine build -p vitrine)"

packages=$(packages_with_device_tests)
[[ -n $packages ]] || echo "skipped: no package has a test target called device yet" >&2
for package in $packages; do
    strip -o "$carry/tests/$package-device" "$(executables device test -p "$package" --test device --no-run)"
done

cp benches/compare/common.py "$carry/compare/"
cp benches/compare/gpu/*.py "$carry/compare/gpu/"
cp benches/compare/gpu/run.sh "$carry/"
git rev-parse HEAD >"$carry/commit"

if [[ $# == 2 ]]; then
    mkdir "$carry/tokenizer"
    cp "$1"/tokenizer.json "$1"/vocab.txt "$1"/*config.json "$carry/tokenizer/"
    "${PYTHON:-python3}" benches/compare/gpu/sample.py "$1/tokenizer.json" "$2" "$carry/imdb"
else
    echo "skipped: no tokenizer and IMDB folder given, so no rows on real texts" >&2
fi

chmod -R u+w "$carry"
kib=$(du -sk --apparent-size "$carry" | cut -f1)
find "$carry" -type f -printf '%10s  %P\n'
echo "$carry: $((kib / 1024)) MiB of at most $limit_mib; there: ./run.sh OUTPUT_DIR"
if ((kib >= limit_mib * 1024)); then
    echo "$carry holds too much to be carried: leave the data out, or look for debug information in the list above" >&2
    exit 1
fi

#!/usr/bin/env bash
# Runs on a GPU machine all that carry.sh packed, and writes OUTPUT_DIR/results.json (and log.txt, with all output):
#
#     ./run.sh [OUTPUT_DIR]
#     STEPS="doctor tests" ./run.sh          # of: doctor tests sanitizer compare notebook
#     ROUNDS=3 LIMIT=900 PYTHON=python3 ./run.sh
#
# LIMIT is how many seconds one command may take. PYTHON must have torch with CUDA and transformers, for `compare`.
set -uo pipefail
output=$(realpath -m "${1:-results}")
cd "$(dirname "$0")" || exit 1
steps=${STEPS:-doctor tests sanitizer compare notebook}
python=${PYTHON:-python3}
limit=${LIMIT:-500}
rounds=${ROUNDS:-2}

[[ -x vitrine ]] || { echo "no vitrine beside run.sh: carry.sh makes the folder to run this in" >&2; exit 1; }
nvidia-smi -L >/dev/null 2>&1 || { echo "no NVIDIA GPU here (nvidia-smi -L fails): run this on a machine with one" >&2; exit 1; }
mkdir -p "$output" || exit 1
: >"$output/log.txt"
: >"$output/.steps"
export VITRINE_REQUIRE_CUDA=1 # a device test that finds no device fails

# cuBLASLt is often not where the loader looks: in a toolkit's folder, or beside PyTorch.
if ! ldconfig -p 2>/dev/null | grep -q libcublasLt.so; then
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null)
    library=$(find /usr/local/cuda*/ "$site/nvidia" -name 'libcublasLt.so*' 2>/dev/null | head -n 1)
    [[ -n $library ]] && LD_LIBRARY_PATH=$(dirname "$library")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    echo "cuBLASLt: ${library:-not found}"
fi

# step NAME COMMAND...: runs it, logs its output, and notes its exit code and seconds. 124 is "stopped at the limit".
step() {
    local name=$1 started=$EPOCHREALTIME code
    shift
    printf '\n===== %s: %s\n' "$name" "$*" >>"$output/log.txt"
    timeout "$limit" "$@" >"$output/.last" 2>&1
    code=$?
    cat "$output/.last" >>"$output/log.txt"
    printf '%s\t%s\t%s\t%s\n' "$name" "$code" "$started" "$EPOCHREALTIME" >>"$output/.steps"
    echo "$name: exit code $code"
    [[ $code == 0 ]] || tail -n 5 "$output/.last"
    return "$code"
}

skip() {
    printf '%s\tskipped: %s\t0\t0\n' "$1" "$2" >>"$output/.steps"
    echo "$1: skipped: $2"
}

doctor() { step doctor ./vitrine doctor; }

tests() {
    local binary found=
    for binary in tests/*; do
        [[ -x $binary ]] || continue
        found=1
        step "${binary#tests/}" "$binary" --nocapture
    done
    [[ -n $found ]] || skip tests "no test binary was carried"
}

sanitizer() {
    local binary tool
    command -v compute-sanitizer >/dev/null || { skip sanitizer "compute-sanitizer is not on the PATH"; return; }
    for binary in tests/*; do
        [[ -x $binary ]] || continue
        for tool in memcheck racecheck; do
            step "${binary#tests/}, $tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$binary" --test-threads 1
        done
    done
}

compare() {
    local lengths=() a_run=$limit
    [[ -d imdb ]] && lengths=(--lengths imdb/lengths.txt)
    # The whole comparison has no limit of its own: each of its runs has.
    limit=0 step compare "$python" compare/gpu/run.py --vitrine ./vitrine --rounds "$rounds" --timeout "$a_run" \
        "${lengths[@]}" --json "$output/gpu.json" && cat "$output/.last"
}

# The notebook's recipe at BERT-base size: 471 steps, and 500 rows evaluated.
notebook() {
    [[ -d imdb ]] || { skip notebook "no data was carried"; return; }
    step "notebook: init" ./vitrine init --config bert-base --tokenizer tokenizer --output model --overwrite || return
    step notebook ./vitrine train --recipe notebook --model model --data imdb --train-samples all --test-samples all \
        --device cuda --dtype bf16 --output trained --overwrite --json && cp trained/run.json "$output/notebook.json"
}

for name in $steps; do
    case $name in
    doctor | tests | sanitizer | compare | notebook) "$name" ;;
    *) skip "$name" "no such step" ;;
    esac
done

"$python" - "$output" "$(cat commit 2>/dev/null)" <<'PYTHON'
import json, pathlib, subprocess, sys
output = pathlib.Path(sys.argv[1])
steps = []
for line in (output / ".steps").read_text().splitlines():
    name, code, started, ended = line.split("\t")
    if code.isdigit():
        steps.append({"name": name, "exit_code": int(code), "seconds": round(float(ended) - float(started), 3)})
    else:
        steps.append({"name": name, "skipped": code.removeprefix("skipped: ")})
query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
results = {"commit": sys.argv[2], "gpu": subprocess.run(query, capture_output=True, text=True).stdout.strip(), "steps": steps}
for name in ["gpu", "notebook"]:
    if (path := output / f"{name}.json").exists():
        results[name] = json.loads(path.read_text())
(output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
PYTHON
rm -f "$output/.steps" "$output/.last"
! grep -q '"exit_code": [^0]' "$output/results.json"

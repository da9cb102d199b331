"""Runs Vitrine, PyTorch, ONNX Runtime and candle on the same work, in turn, and prints a table of ratios.

    python3 benches/compare/run.py                    # everything: most of an hour on two cores
    python3 benches/compare/run.py --only 1x128       # the rows of work whose name contains this
    python3 benches/compare/run.py --candle --rounds 5 --json results.json

Needs Python 3.11 and cargo. The pinned packages are installed into target/compare-venv, unless --python or
VITRINE_COMPARE_PYTHON names an interpreter that has them. Every round runs each system once, one after the other, so
that a noisy neighbour hits all of them; a figure is the median over the rounds of each run's median, and a ratio is of
two figures. "of peak" is FLOPs over time over what Vitrine's own matrix kernel of the same precision reaches on operands
in the first-level cache, measured by Vitrine's run beside it: executed FLOPs for Vitrine, the nominal ones of the same
work for the others. The script itself needs no package.
"""

import argparse
import datetime
import glob
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import common

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REQUIREMENTS = HERE / "requirements.txt"
VENV = ROOT / "target" / "compare-venv"
CANDLE = ROOT / "target" / "compare-candle"

# name, mode, batch, seq, (warmup, steps) of a run
WORK = [
    ("train 16x512", "train", 16, 512, (1, 1)),
    ("forward 16x512", "infer", 16, 512, (1, 2)),
    ("forward 1x128", "infer", 1, 128, (3, 15)),
    ("forward 1x32", "infer", 1, 32, (5, 30)),
]

# Prints "name version" for each pinned package that the interpreter lacks, or has in another version. A local part of
# a version (2.11.0+cpu) does not count.
CHECK = """
import importlib.metadata, sys
for line in open(sys.argv[1]):
    name, _, wanted = line.strip().partition("==")
    try:
        found = importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        found = "missing"
    if name and found != wanted:
        print(f"{name} {wanted} ({found})")
"""


def note(text):
    print(text, file=sys.stderr, flush=True)


def wrong_packages(python):
    """What of requirements.txt the interpreter does not have, as text; empty if it has all."""
    try:
        done = subprocess.run([python, "-c", CHECK, REQUIREMENTS], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return ", ".join(done.stdout.splitlines()) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def python_with_packages(given):
    """The interpreter that runs the other systems' scripts: the given one, or that of an environment of its own."""
    if given:
        # Not resolved further: an environment's python is a link, and is what it is by its place.
        given = os.path.abspath(shutil.which(given) or given)
        if wrong := wrong_packages(given):
            sys.exit(f"{given} lacks what requirements.txt pins: {wrong}; install it there, or leave --python out")
        return given
    python = VENV / "bin" / "python"
    if python.exists() and not wrong_packages(python):
        return python
    if sys.version_info < (3, 11):
        sys.exit("the pinned packages need Python 3.11: start this script with a newer python3, or name one with --python")
    note("installing requirements.txt into target/compare-venv (once; PyPI's torch for Linux on x86-64 takes 5 GB)")
    steps = [
        [sys.executable, "-m", "venv", VENV],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode != 0:
            reason = ((done.stderr + done.stdout).strip().splitlines() or ["no message"])[-1]
            sys.exit(
                f"no Python environment: {reason}. Check the network and pip's index and run again, or install "
                "benches/compare/requirements.txt elsewhere and name that interpreter with --python"
            )
    return python


def built(command, what, flags=None):
    """Runs cargo; false if it is absent or fails, after a line that says so."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=os.environ | (flags or {}))
    except FileNotFoundError:
        note(f"{what} is not built: cargo is not on the PATH")
        return False
    if done.returncode != 0:
        note(f"{what} is not built: cargo failed, as it says above")
    return done.returncode == 0


def vitrine_binary(given):
    if given:
        return pathlib.Path(given).resolve()
    if not built(["cargo", "build", "--release", "--locked", "-p", "vitrine"], "vitrine"):
        sys.exit("no vitrine to measure: build it, and name it with --vitrine")
    return ROOT / "target" / "release" / "vitrine"


def candle_binary():
    """candle's program, built with its project's own flags; None, visibly, where cargo cannot build it."""
    manifest = HERE / "candle" / "Cargo.toml"
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", CANDLE]
    flags = {"RUSTFLAGS": "-C target-cpu=native"}
    return CANDLE / "release" / "candle-forward" if built(command, "candle (skipped)", flags) else None


def tcmalloc():
    found = [path for folder in ["*/", "", "../lib64/"] for path in glob.glob(f"/usr/lib/{folder}libtcmalloc_minimal.so.4")]
    return found[0] if found else None


def systems(mode, arguments, programs):
    """(name, command, environment, precision) of each system that does this work."""
    vitrine, python, candle = programs
    dtypes = arguments.dtypes.split(",")
    rows = [(f"vitrine {d}", [vitrine, "bench", "step", "--mode", mode, "--dtype", d], {}, d) for d in dtypes]
    # A forward pass hardly depends on the allocator: one is enough.
    allocators = {"tcmalloc": {"LD_PRELOAD": tcmalloc()}} if tcmalloc() else {}
    if mode == "train" or not allocators:
        allocators["default malloc"] = {}
    for dtype in dtypes:
        command = [python, "torch_step.py", "--mode", mode, "--dtype", dtype]
        rows += [(f"pytorch {dtype}, {name}", command, extra, dtype) for name, extra in allocators.items()]
    if mode == "infer":
        rows.append(("onnxruntime f32", [python, "onnx_forward.py"], {}, "f32"))
        rows.append(("onnxruntime int8", [python, "onnx_forward.py", "--int8"], {}, "int8"))
        if candle:
            threads = str(arguments.threads)
            rows.append(("candle f32", [candle], {"RAYON_NUM_THREADS": threads, "CANDLE_NUM_THREADS": threads}, "f32"))
    return rows


def run(command, extra):
    """The JSON object that a program prints last, or the last line of its complaint."""
    done = subprocess.run(command, env=os.environ | extra, cwd=HERE, capture_output=True, text=True)
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode} and no message"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1]), None


def same_names(answer):
    """Vitrine's result under the names that `common.report` gives to those of the others."""
    if "seconds_per_step" not in answer:
        return answer
    names = {"median_s": "seconds_per_step", "min_s": "seconds_min", "max_s": "seconds_max"}
    answer = answer | {new: answer[old] for new, old in names.items()}
    return answer | {"peak_rss_gib": (answer["peak_rss_bytes"] or 0) / 2**30}


def measure(work, arguments, programs):
    """Every system's results of one row of work, round by round: {system: {"precision", "runs"}}."""
    name, mode, batch, seq, (warmup, steps) = work
    shape = ["--config", arguments.config, "--batch", str(batch), "--seq", str(seq), "--threads", str(arguments.threads)]
    shape += ["--warmup", str(warmup), "--steps", str(steps), "--json"]
    rows = systems(mode, arguments, programs)
    results = {system: {"precision": precision, "runs": []} for system, _, _, precision in rows}
    for round_ in range(arguments.rounds):
        for system, command, extra, _ in rows:
            note(f"{name}, round {round_ + 1}, {system}")
            answer, error = run([*command, *shape], extra)
            if error:
                note(f"{name}, {system}: skipped in this round: {error}")
            else:
                results[system]["runs"].append(same_names(answer))
    return {system: result for system, result in results.items() if result["runs"]}


def summarise(results):
    """Adds to each system its seconds, memory, share of the peak, and Vitrine's speed as a multiple of its own."""
    for result in results.values():
        for key, field in [("seconds", "median_s"), ("gib", "peak_rss_gib")]:
            result[key] = statistics.median(run[field] for run in result["runs"])
    ours = {system: result for system, result in results.items() if system.startswith("vitrine")}
    if not ours:
        return
    runs = [run for result in ours.values() for run in result["runs"]]
    peaks = {d: statistics.median(run[f"{d}_peak_tflops"] for run in runs) for d in ["f32", "bf16"]}
    nominal = statistics.median(run["tflops"] * run["median_s"] for run in runs)
    for system, result in results.items():
        work = nominal
        if system in ours:
            work = statistics.median(run["executed_tflops"] * run["median_s"] for run in result["runs"])
        else:
            result["ours_times_as_fast"] = {name: result["seconds"] / own["seconds"] for name, own in ours.items()}
        if result["precision"] in peaks:
            result["share_of_peak"] = work / result["seconds"] / peaks[result["precision"]]


def show(title, results):
    print(f"\n{title}\n{'system':<30}{'seconds':>10}{'GiB':>8}{'of peak':>9}  ours are so many times as fast")
    for system, result in results.items():
        share = result.get("share_of_peak")
        ratios = result.get("ours_times_as_fast", {}).items()
        print(
            f"{system:<30}{result['seconds']:>10.4f}{result['gib']:>8.2f}{f'{share:.0%}' if share else '':>9}  "
            + ", ".join(f"{ratio:.2f} ({own.removeprefix('vitrine ')})" for own, ratio in ratios),
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows of work whose name contains this")
    parser.add_argument("--config", default="bert-base", help="bert-base, mini, or a folder with a config.json")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--candle", action="store_true", help="candle's forward pass too; cargo builds it")
    parser.add_argument("--vitrine", help="the binary; default: cargo builds it")
    parser.add_argument("--python", default=os.environ.get("VITRINE_COMPARE_PYTHON"), help="one that has the packages")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures into this file")
    arguments = parser.parse_args()
    work = [row for row in WORK if arguments.only in row[0]]
    if not work:
        sys.exit(f"--only {arguments.only}: no such work; there is {', '.join(row[0] for row in WORK)}")
    if pathlib.Path(arguments.config).is_dir():
        arguments.config = str(pathlib.Path(arguments.config).resolve())  # the scripts run in their own folder
    if not tcmalloc():
        note("libtcmalloc-minimal4 is not installed: PyTorch is measured with the default malloc only, and trains slower")
    python = python_with_packages(arguments.python)
    programs = vitrine_binary(arguments.vitrine), python, candle_binary() if arguments.candle else None

    tables = {}
    for row in work:
        results = measure(row, arguments, programs)
        summarise(results)
        title = f"{pathlib.Path(arguments.config).name}, {row[0]}, {arguments.threads} threads"
        show(title, results)
        tables[title] = results
    if arguments.json:
        about = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "processor": common.processor(),
            "packages": REQUIREMENTS.read_text().split(),
        }
        arguments.json.write_text(json.dumps(about | {"work": tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()

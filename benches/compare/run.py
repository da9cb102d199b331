"""Runs Vitrine, PyTorch and ONNX Runtime on the same work, in turn, and prints a table of ratios.

    python3 benches/compare/run.py                  # everything: about half an hour on two cores
    python3 benches/compare/run.py --only 1x128     # the rows whose name contains this
    python3 benches/compare/run.py --rounds 5 --json results.json

Needs Python 3.11 and cargo. The pinned packages are installed into target/compare-venv at the first run. Every round
runs each system once, one after the other, so that a noisy neighbour hits all of them; a figure is the median over the
rounds of each run's median, and a ratio is of these. "% of peak" is Vitrine's executed FLOPs over what its own kernel
reaches on operands in the first-level cache, in the same run.
"""

import argparse
import glob
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VENV = ROOT / "target" / "compare-venv"

# name, mode, batch, seq, (warmup, steps) of a run
WORK = [
    ("train 16x512", "train", 16, 512, (1, 1)),
    ("forward 16x512", "infer", 16, 512, (1, 2)),
    ("forward 1x128", "infer", 1, 128, (3, 15)),
    ("forward 1x32", "infer", 1, 32, (5, 30)),
]


def tcmalloc():
    found = [path for folder in ["*/", "", "../lib64/"] for path in glob.glob(f"/usr/lib/{folder}libtcmalloc_minimal.so.4")]
    return found[0] if found else None


def systems(mode, dtypes):
    """(name, script or None for Vitrine, arguments, environment)."""
    preload = {"LD_PRELOAD": tcmalloc()} if tcmalloc() else {}
    label = "tcmalloc" if preload else "default malloc"
    rows = [(f"vitrine {dtype}", None, ["--dtype", dtype], {}) for dtype in dtypes]
    rows += [(f"pytorch {dtype} {label}", "torch_step.py", ["--dtype", dtype, "--mode", mode], preload) for dtype in dtypes]
    if mode == "infer":
        rows += [("onnxruntime f32", "onnx_forward.py", [], {}), ("onnxruntime int8", "onnx_forward.py", ["--int8"], {})]
    return rows


def environment():
    """The Python of an environment with the pinned packages."""
    python = VENV / "bin" / "python"
    if not python.exists():
        print(f"installing the pinned packages into {VENV}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
    return python


def run(command, extra):
    done = subprocess.run(command, env=os.environ | extra, cwd=HERE, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return None, f"{command[1] if 'python' in str(command[0]) else command[0]}: {last}"
    return json.loads(done.stdout.strip().splitlines()[-1]), None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--config", default="bert-base", help="bert-base, mini, or a folder with a config.json")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--vitrine", help="the binary; default: cargo builds it")
    parser.add_argument("--python", help="a Python that has the packages; default: an environment of its own")
    parser.add_argument("--json", help="also write all figures into this file")
    arguments = parser.parse_args()
    if not tcmalloc():
        print("note: libtcmalloc-minimal4 is not installed: PyTorch trains slower than it could", file=sys.stderr)
    vitrine = arguments.vitrine
    if not vitrine:
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "vitrine"], cwd=ROOT, check=True)
        vitrine = ROOT / "target" / "release" / "vitrine"
    python = arguments.python or environment()

    results = []
    for name, mode, batch, seq, (warmup, steps) in WORK:
        if arguments.only not in name:
            continue
        rows = systems(mode, arguments.dtypes.split(","))
        seconds = {row[0]: [] for row in rows}
        peaks, memory = {}, {}
        for _ in range(arguments.rounds):
            for system, script, extra, variables in rows:
                common = ["--config", arguments.config, "--batch", str(batch), "--seq", str(seq), "--json"]
                common += ["--warmup", str(warmup), "--steps", str(steps)]
                if script:
                    answer, error = run([python, script, *common, *extra], variables)
                else:
                    answer, error = run([vitrine, "bench", "step", *common, "--mode", mode, *extra], variables)
                if error:
                    print(f"{name}, {system}: {error}", file=sys.stderr)
                    continue
                seconds[system].append(answer.get("median_s") or answer["seconds_per_step"])
                memory[system] = answer.get("peak_rss_gib") or (answer["peak_rss_bytes"] or 0) / 2**30
                if not script:
                    dtype = extra[1]
                    peaks[system] = answer["executed_tflops"] / answer[f"{dtype}_peak_tflops"]
        medians = {system: statistics.median(values) for system, values in seconds.items() if values}
        print(f"\n{arguments.config}, {name}")
        print(f"{'system':<28}{'seconds':>10}{'GiB':>8}{'of peak':>9}{'  ours are so many times as fast':<30}")
        for system, median in medians.items():
            ratios = [f"{median / medians[own]:.2f} ({own.split()[1]})" for own in medians if own.startswith("vitrine")]
            ratios = "" if system.startswith("vitrine") else "  " + ", ".join(ratios)
            peak = f"{100 * peaks[system]:.0f} %" if system in peaks else ""
            print(f"{system:<28}{median:>10.4f}{memory[system]:>8.2f}{peak:>9}{ratios}", flush=True)
        results.append({"work": name, "config": arguments.config, "seconds": seconds, "peak": peaks, "gib": memory})
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

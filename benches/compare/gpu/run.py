"""Runs Vitrine's CUDA backend and PyTorch on the same GPU work, in turn, and writes one JSON file with ratios.

    python3 benches/compare/gpu/run.py --vitrine target/release/vitrine --lengths LENGTHS --json gpu.json

Needs an NVIDIA GPU with its driver, and for --python (default: the interpreter that runs this) a CUDA build of torch and
transformers. Every round runs each system once. A figure is the median over the rounds of each run's median tokens per
second, and a ratio is Vitrine's figure over the other's. Work that a program cannot do is skipped, visibly, and the reason
stands in the file.
"""

import argparse
import datetime
import json
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
OURS = "vitrine bf16"


def nvidia_smi():
    """Name, driver and memory of the GPUs; leaves with one line where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"no NVIDIA GPU to measure: nvidia-smi does not run ({error}); start this on a machine with a GPU and its driver")
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit(f"no NVIDIA GPU to measure: nvidia-smi says: {reason(done)}")
    names = ["gpu", "driver", "memory"]
    return [dict(zip(names, (field.strip() for field in line.split(",")))) for line in done.stdout.strip().splitlines()]


def reason(done):
    """The line of a failed program's output that says most."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("error")), (lines or [f"exit code {done.returncode}"])[-1])


def run(command, timeout):
    """(result, None) of a program that prints one JSON object last, or (None, why not)."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, f"stopped after {timeout} s"
    except OSError as error:
        return None, str(error)
    if done.returncode != 0:
        return None, reason(done)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), None
    except (IndexError, json.JSONDecodeError):
        return None, "printed no JSON object"


def works(arguments):
    """(name, {system: command}, the field of the results that is compared)."""
    python = arguments.python

    def training(name, shape, timing):
        ours = [arguments.vitrine, "bench", "step", "--device", "cuda", "--dtype", "bf16", "--mode", "train", "--json"]
        systems = {OURS: [*ours, "--config", arguments.config, *shape, *timing]}
        for mode in ["eager", "compile"]:
            script = [python, HERE / "train_step.py", "--config", arguments.config, "--mode", mode]
            systems[f"torch {mode}, sdpa"] = [*script, *shape, *timing]
        return name, systems, "tokens_per_s"

    yield "peaks", {"torch peaks": [python, HERE / "peaks.py"]}, "gemm_bf16_tflops"
    timing = ["--steps", arguments.steps, "--warmup", 10]
    for batch in [16, 64]:
        yield training(f"train {batch}x512", ["--batch", batch, "--seq", 512], timing)
    if arguments.lengths:
        # Vitrine takes the rows as they are, PyTorch padded to the longest of each batch: the tokens counted are the real ones.
        yield training("train real lengths, batch 16", ["--batch", 16, "--lengths", arguments.lengths], [])
    else:
        note("train real lengths: skipped: no --lengths (sample.py writes such a file)")
    for batch, seq in [(16, 512), (2, 4096)]:
        # Without dropout, as `bench kernels` measures it.
        script = [python, HERE / "attention.py", "--batch", batch, "--seq", seq, "--dropout", 0]
        yield f"attention T {seq}", {"torch sdpa flash": script}, "forward_backward"
    # Vitrine's own kernels, attention among them, with the peaks of its run.
    kernels = [arguments.vitrine, "bench", "kernels", "--device", "cuda", "--json"]
    yield "kernels", {OURS: kernels}, None


def figure(result, field):
    """The compared number of one run; Vitrine's name of tokens per second is a longer one."""
    value = result.get(field, result.get("tokens_per_second") if field == "tokens_per_s" else None)
    return value["tflops"] if isinstance(value, dict) else value


def note(text):
    print(text, file=sys.stderr, flush=True)


def measure(name, systems, field, arguments, peak):
    """All runs of one piece of work, interleaved, with medians, ratios, shares of the peak and what was skipped."""
    runs, skipped = {}, {}
    for round_ in range(arguments.rounds if field else 1):
        for system, command in systems.items():
            if system in skipped:
                continue
            note(f"{name}, round {round_ + 1}, {system}")
            result, error = run(command, arguments.timeout)
            if error:
                skipped[system] = error
                note(f"{name}, {system}: skipped: {error}")
            else:
                runs.setdefault(system, []).append(result)
    answer = {"runs": runs, "skipped": skipped}
    if field:
        values = {system: [figure(result, field) for result in results] for system, results in runs.items()}
        medians = {system: statistics.median(those) for system, those in values.items() if None not in those}
        ours = medians.get(OURS)
        answer |= {"compared": field, "median": medians}
        answer["ratio"] = {system: ours / other for system, other in medians.items() if ours and system != OURS}
        if peak and ours and all("tflops" in result for result in runs[OURS]):
            nominal = statistics.median(result["tflops"] for result in runs[OURS]) / ours  # the same work for all
            answer["share_of_gemm_peak"] = {system: nominal * median / peak for system, median in medians.items()}
        for system, median in medians.items():
            ratio = answer["ratio"].get(system)
            share = answer.get("share_of_gemm_peak", {}).get(system)
            print(
                f"{name:<30}{system:<22}{median:>12.1f}  {f'{share:.0%} of the GEMM peak' if share else '':<20}"
                f"{f'  ours: {ratio:.2f} times' if ratio else ''}".rstrip(),
                flush=True,
            )
    return answer


def attention_ratios(work):
    """PyTorch's seconds over ours, forward + backward, of the attention shapes that both measured."""
    ratios = {}
    for ours in work.get("kernels", {}).get("runs", {}).get(OURS, []):
        seconds = {}
        for row in ours["kernels"]:
            if row["op"].startswith("attention"):
                seconds[row["shape"]] = seconds.get(row["shape"], 0.0) + row["seconds"]
        for shape, mine in seconds.items():
            length = shape.split(",")[0].split()[-1]  # "16 x 512, 12 heads of 64 bf16"
            runs = work.get(f"attention T {length}", {}).get("runs", {}).get("torch sdpa flash", [])
            if runs:
                theirs = statistics.median(run["forward_backward"]["median_s"] for run in runs)
                ratios[shape] = theirs / mine
                print(f"attention {shape}: ours {theirs / mine:.2f} times FlashAttention", flush=True)
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vitrine", default=ROOT / "target" / "release" / "vitrine", type=pathlib.Path, help="the binary")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and transformers")
    parser.add_argument("--lengths", type=pathlib.Path, help="token counts of real texts, one a line")
    parser.add_argument("--config", default="bert-base", help="bert-base, mini, or a folder with a config.json")
    parser.add_argument("--only", default="", help="work whose name contains this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of a run")
    parser.add_argument("--timeout", type=int, default=300, help="seconds after which a run is stopped and skipped")
    parser.add_argument("--json", type=pathlib.Path, default="gpu.json", help="where the figures go")
    arguments = parser.parse_args()
    arguments.vitrine = arguments.vitrine.resolve()
    if not shutil.which(arguments.vitrine):
        sys.exit(f"{arguments.vitrine}: no such program: build it (cargo build --release -p vitrine), or name it with --vitrine")
    gpus = nvidia_smi()
    check = "import sys; sys.path.insert(0, sys.argv[1]); import cuda; cuda.require(); import transformers"
    done = subprocess.run([arguments.python, "-c", check, HERE], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"PyTorch cannot be measured: {reason(done)}")

    answer = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "gpus": gpus,
        "platform": platform.platform(),
        "vitrine": subprocess.run([arguments.vitrine, "--version"], capture_output=True, text=True).stdout.strip(),
        "work": {},
    }
    peak = None
    for name, systems, field in works(arguments):
        if arguments.only in name or name == "peaks":
            answer["work"][name] = measure(name, systems, field, arguments, peak)
            peak = peak or answer["work"]["peaks"]["median"].get("torch peaks")
            # Written after each piece, so that a machine taken away leaves what was measured.
            arguments.json.write_text(json.dumps(answer, indent=1) + "\n")
    answer["attention_ratio"] = attention_ratios(answer["work"])
    arguments.json.write_text(json.dumps(answer, indent=1) + "\n")
    if answer["work"].keys() <= {"peaks"} and arguments.only not in "peaks":
        sys.exit(f"--only {arguments.only}: no such work")


if __name__ == "__main__":
    main()

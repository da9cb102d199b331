"""What the GPU scripts have in common: the device or one line that says what is missing, timing by events, results."""

import json
import os
import pathlib
import statistics
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

DEVICE = "cuda"


def require():
    """torch, if it is there and sees a GPU; otherwise one line and exit code 1."""
    try:
        import torch
    except ImportError as error:
        sys.exit(f"{sys.executable} has no PyTorch ({error}): use an interpreter that has it, built for CUDA")
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device: run this on a machine with an NVIDIA GPU and a driver, with a CUDA build of torch")
    return torch


def measure(torch, step, warmup, steps):
    """Seconds of each of `steps` calls after `warmup` calls, on the device's clock.

    Events stand between the calls and the host waits only at the end, as in training: a call is charged with the time by
    which it delays the next one, whether the device or the host that launches its kernels is the slower.
    """
    for _ in range(warmup):
        step()
    torch.cuda.synchronize()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1e3 for before, after in zip(events, events[1:])]


def summary(seconds):
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds), "steps": len(seconds)}


def report(torch, **result):
    """Prints one JSON object: what is given, then the versions and the memory that PyTorch took from the device."""
    print(
        json.dumps(
            result
            | {
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
                "gpu": torch.cuda.get_device_name(),
                "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
                "load_average": os.getloadavg()[0],
            }
        ),
        flush=True,
    )

"""What the side-by-side scripts have in common: model sizes, batches, timing, and one line of results."""

import json
import os
import pathlib
import platform
import resource
import statistics
import time

CONFIGS = {
    "bert-base": {},
    "mini": dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024),
}
LABELS = 2
SEED = 42


def add_arguments(parser):
    parser.add_argument("--config", default="bert-base", help="bert-base, mini, or a folder with a config.json")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=512, help="tokens of each sequence; none is padding")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=5, help="timed repetitions")
    parser.add_argument("--warmup", type=int, default=1, help="repetitions before them")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line of text")


def bert_config(name):
    """A `BertConfig` of a two-class classifier: bert-base-uncased's sizes, bert-mini's, or a folder's."""
    from transformers import BertConfig

    if name in CONFIGS:
        return BertConfig(**CONFIGS[name], num_labels=LABELS)
    return BertConfig.from_pretrained(pathlib.Path(name), num_labels=LABELS)


def token_ids(config, batch, seq):
    """Random ids and labels: [batch, seq] and [batch], int64."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(1000, config.vocab_size, (batch, seq), generator=generator)
    return ids, torch.randint(0, LABELS, (batch,), generator=generator)


def measure(step, warmup, steps):
    """Seconds of each of `steps` calls, after `warmup` calls."""
    for _ in range(warmup):
        step()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def allocator():
    """The malloc in use, as far as the loaded libraries tell."""
    maps = pathlib.Path("/proc/self/maps").read_text()
    return next((name for name in ["tcmalloc", "jemalloc", "mimalloc"] if name in maps), "libc")


def report(arguments, system, seconds):
    """Prints median, fastest and slowest seconds, tokens per second, and the process's peak resident memory."""
    median = statistics.median(seconds)
    result = {
        "system": system,
        "config": pathlib.Path(arguments.config).name,
        "batch": arguments.batch,
        "seq": arguments.seq,
        "mode": getattr(arguments, "mode", "infer"),
        "dtype": getattr(arguments, "dtype", "f32"),
        "threads": arguments.threads,
        "allocator": allocator(),
        "median_s": median,
        "min_s": min(seconds),
        "max_s": max(seconds),
        "tokens_per_s": arguments.batch * arguments.seq / median,
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,  # Linux counts KiB
        "load_average": os.getloadavg()[0],
        "processor": processor(),
    }
    if arguments.json:
        print(json.dumps(result), flush=True)
    else:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in result.items()), flush=True)

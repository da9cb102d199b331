"""Times a training step of BERT in PyTorch + transformers on a CUDA device.

    python gpu/train_step.py --batch 64 --seq 512 --mode compile
    python gpu/train_step.py --batch 16 --lengths LENGTHS --mode eager

A step is what the Hugging Face Trainer does with `bf16=True`: zero the gradients, forward under autocast with dropout 0.1
and SDPA attention, backward, clip the global norm to 1, fused AdamW with weight decay 0.01 except on biases and LayerNorm.
`--mode compile` compiles the model (`torch.compile`, default mode). Without padding no mask is given, so that SDPA takes its
FlashAttention kernel. Batches lie on the device before the clock starts. Weights are random: speed does not depend on them.

LENGTHS has the number of tokens of one sequence a line (`sample.py` writes it). Its rows are batched in the order of the
file, and a batch is padded to its longest row, as transformers' default collator does. The second pass over the file is timed,
so that no compilation for a new shape is; `tokens_per_s` counts real tokens, not padding.
"""

import argparse
import itertools
import pathlib

import cuda


def training_step(torch, model):
    """A function that runs one whole step on a batch and does not wait for the device."""
    decay = [p for p in model.parameters() if p.dim() > 1]  # exactly those that are neither biases nor LayerNorm's
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-5, fused=True)

    def step(batch):
        optimizer.zero_grad()
        with torch.autocast(cuda.DEVICE, dtype=torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def make_batch(torch, config, lengths):
    """Random ids and labels, padded to the longest row; no mask if nothing is padded."""
    longest = max(lengths)
    ids = torch.randint(1000, config.vocab_size, (len(lengths), longest))
    labels = torch.arange(len(lengths)) % config.num_labels
    batch = {"input_ids": ids, "labels": labels}
    if min(lengths) < longest:
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        batch |= {"input_ids": ids * mask + config.pad_token_id * ~mask, "attention_mask": mask.long()}
    return {name: tensor.to(cuda.DEVICE) for name, tensor in batch.items()}


def read_lengths(path, limit):
    """Lengths of a file, cut at the model's limit as the tokenizer's truncation does."""
    try:
        return [min(int(line), limit) for line in path.read_text().split()]
    except (OSError, ValueError) as error:
        raise SystemExit(f"--lengths: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="bert-base", help="bert-base, mini, or a folder with a config.json")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=512, help="tokens of each sequence; none is padding")
    parser.add_argument("--lengths", type=pathlib.Path, help="real lengths instead, one a line")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--steps", type=int, default=30, help="timed steps; --lengths times its whole file")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them")
    arguments = parser.parse_args()
    torch = cuda.require()
    import common
    import transformers

    torch.manual_seed(common.SEED)
    config = common.bert_config(arguments.config)
    model = transformers.BertForSequenceClassification._from_config(config, attn_implementation="sdpa")
    model = model.to(cuda.DEVICE).train()
    if arguments.lengths:
        lengths = read_lengths(arguments.lengths, config.max_position_embeddings)
    else:
        lengths = [arguments.seq] * arguments.batch
    if not lengths:
        raise SystemExit(f"{arguments.lengths} has no length")
    rows = [lengths[at : at + arguments.batch] for at in range(0, len(lengths), arguments.batch)]
    batches = [make_batch(torch, config, row) for row in rows]
    step = training_step(torch, torch.compile(model) if arguments.mode == "compile" else model)

    if arguments.lengths:
        turn = itertools.cycle(batches)
        seconds = cuda.measure(torch, lambda: step(next(turn)), len(batches), len(batches))
        tokens_per_s = sum(lengths) / sum(seconds)
    else:
        seconds = cuda.measure(torch, lambda: step(batches[0]), arguments.warmup, arguments.steps)
        tokens_per_s = sum(lengths) / cuda.summary(seconds)["median_s"]
    cuda.report(
        torch,
        system=f"torch {arguments.mode}, sdpa",
        config=pathlib.Path(arguments.config).name,
        batch=arguments.batch,
        seq=None if arguments.lengths else arguments.seq,
        real_tokens=sum(lengths),
        padded_tokens=sum(len(row) * max(row) for row in rows),
        total_s=sum(seconds),
        tokens_per_s=tokens_per_s,
        transformers=transformers.__version__,
        **cuda.summary(seconds),
    )


if __name__ == "__main__":
    main()

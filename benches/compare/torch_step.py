"""Times one training step, or one forward pass, of BERT in PyTorch + transformers on the CPU.

    python torch_step.py --config bert-base --batch 16 --seq 512 --mode train
    LD_PRELOAD=libtcmalloc_minimal.so.4 python torch_step.py ...     # the allocator that PyTorch's users should take

A training step is what the Hugging Face Trainer does: zero the gradients, forward with dropout 0.1 and SDPA attention,
backward, clip the global norm to 1, AdamW with weight decay 0.01 except on biases and LayerNorm. `--dtype bf16` is autocast,
with float32 weights. Weights are random: speed does not depend on them.
"""

import argparse

import torch
import transformers
from transformers import BertForSequenceClassification

import common


def training_step(model, batch, autocast):
    decay = [p for p in model.parameters() if p.dim() > 1]  # exactly those that are neither biases nor LayerNorm's
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-5)
    model.train()

    def step():
        optimizer.zero_grad()
        with autocast():
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def forward(model, batch, autocast):
    model.eval()

    def step():
        with torch.inference_mode(), autocast():
            return model(**batch).logits

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(parser)
    parser.add_argument("--mode", choices=["train", "infer"], default="train")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(common.SEED)
    config = common.bert_config(arguments.config)
    model = BertForSequenceClassification._from_config(config, attn_implementation="sdpa")
    ids, labels = common.token_ids(config, arguments.batch, arguments.seq)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def autocast():
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.dtype == "bf16")

    if arguments.mode == "train":
        step = training_step(model, batch | {"labels": labels}, autocast)
    else:
        step = forward(model, batch, autocast)
    system = f"torch {torch.__version__}, transformers {transformers.__version__}"
    common.report(arguments, system, common.measure(step, arguments.warmup, arguments.steps))


if __name__ == "__main__":
    main()

"""Makes the golden files beside this script with PyTorch and transformers.

    python make_goldens.py                      # everything made from random weights, and tokens.json if --minilm is given
    python make_goldens.py --minilm DIR         # also what needs sentence-transformers/all-MiniLM-L6-v2

Every model runs in float64 from float32 weights, and its results are stored rounded to float32: a float32
implementation is then measured against the truth, not against another one's rounding.

Sequences are stored unpadded, one after the other, as Vitrine runs them: `ids`, `token_types` [T] and `offsets` [B + 1].
"""

import argparse
import json
import pathlib

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    get_linear_schedule_with_warmup,
)

HERE = pathlib.Path(__file__).parent
SEED = 42
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__, "seed": str(SEED)}


def save(name, tensors, **metadata):
    tensors = {k: (v.detach().contiguous().clone()) for k, v in tensors.items()}
    tensors = {k: v.float() if v.is_floating_point() else v.long() for k, v in tensors.items()}
    save_file(tensors, HERE / name, metadata={**VERSIONS, **{k: str(v) for k, v in metadata.items()}})
    print(name, (HERE / name).stat().st_size, "bytes")


def randomised(model):
    """Weights that leave nothing trivial: random biases and LayerNorm parameters, larger matrices."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "LayerNorm.weight" in name:
                p.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                p.copy_(0.1 * noise)
            else:
                p.copy_(0.2 * noise)
    return model.double().eval()


def unpadded(lengths, vocab, generator):
    total = sum(lengths)
    ids = torch.randint(5, vocab, (total,), generator=generator)
    types = torch.randint(0, 2, (total,), generator=generator)
    offsets = torch.tensor([0] + list(torch.tensor(lengths).cumsum(0)))
    return ids, types, offsets


def padded(ids, types, offsets):
    lengths = (offsets[1:] - offsets[:-1]).tolist()
    b, s = len(lengths), max(lengths)
    batch = {k: torch.zeros(b, s, dtype=torch.long) for k in ["input_ids", "token_type_ids", "attention_mask"]}
    for i, n in enumerate(lengths):
        rows = slice(offsets[i], offsets[i] + n)
        batch["input_ids"][i, :n] = ids[rows]
        batch["token_type_ids"][i, :n] = types[rows]
        batch["attention_mask"][i, :n] = 1
    return batch


def real(x, batch):
    """The rows of real tokens of [B, S, ..] as [T, ..]."""
    return x[batch["attention_mask"].bool()]


def attention_maps(attentions, batch):
    """Per layer, for every sequence, [H, S, S] without padding, all flattened one after the other."""
    lengths = batch["attention_mask"].sum(1).tolist()
    return {
        f"attentions.{layer}": torch.cat([a[i, :, :n, :n].reshape(-1) for i, n in enumerate(lengths)])
        for layer, a in enumerate(attentions)
    }


def gradients(model):
    return {f"grad.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}


def classifier(name, config, lengths):
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED + 1)
    model = randomised(BertForSequenceClassification._from_config(config, attn_implementation="eager"))
    weights = {k: v for k, v in model.state_dict().items()}
    ids, types, offsets = unpadded(lengths, config.vocab_size, generator)
    labels = torch.randint(0, config.num_labels, (len(lengths),), generator=generator)
    batch = padded(ids, types, offsets)
    out = model(**batch, labels=labels, output_hidden_states=True, output_attentions=True)
    out.loss.backward()
    pooled = model.bert(**batch).pooler_output
    tensors = {f"weight.{k}": v for k, v in weights.items()}
    tensors |= {"ids": ids, "token_types": types, "offsets": offsets, "labels": labels}
    tensors |= {"logits": out.logits, "loss": out.loss, "pooled": pooled}
    tensors |= {f"hidden_states.{i}": real(h, batch) for i, h in enumerate(out.hidden_states)}
    tensors |= attention_maps(out.attentions, batch) | gradients(model)
    save(name, tensors, config=config.to_json_string())


def masked_lm(name, config, lengths):
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED + 2)
    model = randomised(BertForMaskedLM._from_config(config, attn_implementation="eager"))
    weights = model.state_dict()
    ids, types, offsets = unpadded(lengths, config.vocab_size, generator)
    batch = padded(ids, types, offsets)
    total = int(offsets[-1])
    chosen = torch.randperm(total, generator=generator)[: total // 4].sort().values
    targets = torch.randint(0, config.vocab_size, (len(chosen),), generator=generator)
    logits = real(model(**batch).logits, batch)
    loss = torch.nn.functional.cross_entropy(logits[chosen], targets)
    loss.backward()
    tensors = {f"weight.{k}": v for k, v in weights.items() if k != "cls.predictions.decoder.weight"}
    tensors |= {"ids": ids, "token_types": types, "offsets": offsets, "positions": chosen, "targets": targets}
    tensors |= {"logits": logits, "loss": loss} | gradients(model)
    save(name, tensors, config=config.to_json_string())


def trajectory(name, config, steps=20, batch_size=4):
    """The Hugging Face Trainer's update for 20 steps: AdamW, linear schedule with warmup, clipping; no dropout."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED + 3)
    model = randomised(BertForSequenceClassification._from_config(config)).train()
    initial = {k: v.clone() for k, v in model.state_dict().items()}
    no_decay = lambda n: n.endswith("bias") or "LayerNorm" in n
    groups = [
        {"params": [p for n, p in model.named_parameters() if not no_decay(n)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if no_decay(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=5e-5, betas=(0.9, 0.999), eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, 5, steps)
    tensors = {f"weight.{k}": v for k, v in initial.items()}
    losses, norms, lrs = [], [], []
    for step in range(steps):
        lengths = torch.randint(1, config.max_position_embeddings + 1, (batch_size,), generator=generator).tolist()
        ids, types, offsets = unpadded(lengths, config.vocab_size, generator)
        labels = torch.randint(0, config.num_labels, (batch_size,), generator=generator)
        tensors |= {f"{step}.ids": ids, f"{step}.token_types": types, f"{step}.offsets": offsets}
        tensors |= {f"{step}.labels": labels}
        loss = model(**padded(ids, types, offsets), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        losses.append(loss.item())
        lrs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    tensors |= {"losses": torch.tensor(losses), "grad_norms": torch.tensor(norms), "lrs": torch.tensor(lrs)}
    tensors |= {f"final.{k}": v for k, v in model.state_dict().items()}
    save(name, tensors, config=config.to_json_string())


TEXTS = [
    "This movie was absolutely fantastic! I loved every minute of it.",
    "Not bad.",
]
LONG = "The plot, such as it is, wanders from one set piece to the next without ever finding its feet. " * 8


def minilm(folder):
    """Hidden states of a real checkpoint, and for every parameter some entries of its gradient."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = BertConfig.from_pretrained(folder, num_labels=2)
    model = BertForSequenceClassification(config)
    model.bert = BertModel.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(SEED)
    head = torch.randn(2, config.hidden_size, generator=generator) * 0.05
    with torch.no_grad():
        model.classifier.weight.copy_(head)
        model.classifier.bias.copy_(torch.tensor([0.1, -0.1]))
    model = model.double().eval()
    encoded = [tokenizer(text)["input_ids"] for text in TEXTS + [LONG]]
    ids = torch.tensor(sum(encoded, []))
    offsets = torch.tensor([0] + list(torch.tensor([len(e) for e in encoded]).cumsum(0)))
    batch = padded(ids, torch.zeros_like(ids), offsets)
    labels = torch.tensor([1, 0, 0])
    out = model(**batch, labels=labels, output_hidden_states=True)
    out.loss.backward()
    short = int(offsets[len(TEXTS)])
    tensors = {"ids": ids, "offsets": offsets, "labels": labels, "classifier.weight": head, "logits": out.logits}
    tensors |= {"classifier.bias": model.classifier.bias, "loss": out.loss}
    tensors |= {f"hidden_states.{i}": real(h, batch)[:short] for i, h in enumerate(out.hidden_states)}
    for name, p in model.named_parameters():
        flat = p.grad.reshape(-1)
        index = torch.linspace(0, flat.numel() - 1, min(16, flat.numel())).long()
        if name.endswith("word_embeddings.weight"):
            index = ids[:16] * config.hidden_size + torch.arange(16)
        tensors |= {f"index.{name}": index, f"grad.{name}": flat[index], f"max.{name}": flat.abs().max()}
        tensors |= {f"norm.{name}": flat.norm()}
    save("minilm.safetensors", tensors, texts=json.dumps(TEXTS + [LONG]))


def autocast(name, model):
    """How far PyTorch's bfloat16 autocast moves each weight matrix's gradient from its own float32 one: the norm of the
    difference over the norm. On the texts of `minilm`, dropout off."""
    with safe_open(HERE / "minilm.safetensors", "pt") as golden:
        ids, offsets, labels = (golden.get_tensor(key) for key in ["ids", "offsets", "labels"])
    model.eval()
    batch = padded(ids, torch.zeros_like(ids), offsets)

    def gradients(enabled):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(**batch, labels=labels).loss
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.dim() == 2}

    exact, rounded = gradients(False), gradients(True)
    errors = {name: float((rounded[name] - g).norm() / g.norm()) for name, g in exact.items()}
    (HERE / name).write_text(json.dumps({**VERSIONS, "errors": errors}, indent=1) + "\n")


def minilm_classifier(folder):
    """all-MiniLM-L6-v2 under the head of `minilm`."""
    config = BertConfig.from_pretrained(folder, num_labels=2)
    model = BertForSequenceClassification(config)
    model.bert = BertModel.from_pretrained(folder, dtype=torch.float32)
    with safe_open(HERE / "minilm.safetensors", "pt") as golden, torch.no_grad():
        model.classifier.weight.copy_(golden.get_tensor("classifier.weight"))
        model.classifier.bias.copy_(golden.get_tensor("classifier.bias"))
    return model


ODD_TEXTS = {
    "empty": "",
    "spaces": "   \t\n ",
    "plain": "This movie was absolutely fantastic!",
    "accents": "Café naïve façade; El Niño, Å é",
    "turkish": "İstanbul IĞDIR ı",
    "cjk": "我喜欢这部电影 very much 東京タワー 한국 영화",
    "emoji": "great 👍🏽 film 👨‍👩‍👧‍👦 🇫🇷 ❤️!",
    "control": "a\u0000b\u0007c\u200bd\u00ade\ufefff\u2028g\r\nh",
    "nbsp": "non\u00a0breaking\u3000space",
    "long_word": "x" * 300,
    "hundred": "a" * 100,
    "hundred_one": "a" * 101,
    "specials": "a literal [SEP] and [CLS] or [MASK] and [PAD] [UNK] [sep] in text",
    "html": "It was ok.<br /><br />But <b>why</b>?",
    "scripts": "مرحبا بالعالم שלום עולם สวัสดี Привет мир Ελλάδα हिन्दी",
    "numbers": "10/10, 3.14 1,000,000 $5 50% #1 @you https://example.com/a?b=c&d=e",
    "punctuation": "...!!! --- 'quoted' “curly” ‘single’ — – … ¿¡ « »",
    "math": "∑ ∫ √ ≤ ≠ ½ ² ﬁ ﬀ Ⅷ ①",
    "private": "\ue000 \uffff \U000f0000 \ufffd",
    "combining": "Z̷͖̐a̸l̵g̶o̴ e\u0301 n\u0303",
    "nine_hundred": " ".join(["word", "another", "unbelievable"] * 300),
}


def tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cases = []
    for name, text in ODD_TEXTS.items():
        case = {"name": name, "text": text, "ids": tokenizer(text)["input_ids"]}
        for limit in [64, 512]:
            case[f"ids_{limit}"] = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        cases.append(case)
    head = {**VERSIONS, "tokenizer": "sentence-transformers/all-MiniLM-L6-v2 (the bert-base-uncased vocabulary)"}
    (HERE / "tokens.json").write_text(json.dumps({**head, "cases": cases}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", help="folder of sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument(
        "--random-base",
        help="folder that `vitrine init --config bert-base --tokenizer MINILM` wrote, after a `vitrine train --lr 1e-30` "
        "on any two rows, which gives it a head and changes nothing",
    )
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    small = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    small |= dict(max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    classifier("tiny.safetensors", BertConfig(**small, num_labels=3), [5, 1, 32, 17])
    other = small | dict(num_attention_heads=4, num_hidden_layers=1, hidden_act="gelu_new")
    classifier("tiny_gelu_new.safetensors", BertConfig(**other, num_labels=4), [9, 2])
    masked_lm("masked_lm.safetensors", BertConfig(**small), [7, 20, 3])
    trajectory("trajectory.safetensors", BertConfig(**small, num_labels=2))
    if arguments.minilm:
        minilm(arguments.minilm)
        autocast("autocast.json", minilm_classifier(arguments.minilm))
        tokens(arguments.minilm)
    if arguments.random_base:
        model = BertForSequenceClassification.from_pretrained(arguments.random_base, dtype=torch.float32)
        autocast("autocast_random_base.json", model)


if __name__ == "__main__":
    main()

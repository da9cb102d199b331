"""Makes a golden file for each model family beside this script, with PyTorch and transformers.

    python make_families.py [FAMILY ..]

A family is a row of FAMILIES. Its file has three sections, each a small model with random weights in the form that
`make_goldens.py` describes: `classifier.*`, `masked_lm.*` and `trajectory.*`; configs are in the header's metadata.
"""

import argparse

import torch
import transformers
from make_goldens import SEED, attention_maps, gradients, padded, real, save, unpadded

SIZES = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SIZES |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)

# (name of the classes in transformers, config, keys of tied weights that a file lacks)
FAMILIES = {
    "bert": ("Bert", dict(**SIZES, max_position_embeddings=24), ["cls.predictions.decoder.weight"]),
    "distilbert": (
        "DistilBert",
        dict(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=24, dropout=0.0)
        | dict(attention_dropout=0.0, seq_classif_dropout=0.0),
        ["vocab_projector.weight"],
    ),
    "roberta": (
        "Roberta",
        dict(**SIZES, max_position_embeddings=26, type_vocab_size=1, layer_norm_eps=1e-5),
        ["lm_head.decoder.weight", "lm_head.decoder.bias"],
    ),
}


def classes(family):
    name, config, tied = FAMILIES[family]
    get = lambda suffix: getattr(transformers, name + suffix)
    return get("Config"), get("ForSequenceClassification"), get("ForMaskedLM"), config, tied


def randomised(model):
    """Weights that leave nothing trivial: random biases and LayerNorm parameters, larger matrices."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 1 and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            elif p.dim() == 1:
                p.copy_(0.1 * noise)
            else:
                p.copy_(0.2 * noise)
    return model.double().eval()


def inputs(config, lengths, generator):
    """Random tokens without special ones, of random types where the model has several."""
    ids, types, offsets = unpadded(lengths, config.vocab_size, generator)
    types = types % getattr(config, "type_vocab_size", 1)
    batch = padded(ids, types, offsets)
    batch["input_ids"][batch["attention_mask"] == 0] = config.pad_token_id
    if not hasattr(config, "type_vocab_size"):
        del batch["token_type_ids"]
    return ids, types, offsets, batch


def classifier(family):
    config_class, model_class, _, sizes, _ = classes(family)
    config = config_class(**sizes, num_labels=3)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED + 1)
    model = randomised(model_class._from_config(config, attn_implementation="eager"))
    weights = dict(model.state_dict())
    lengths = [5, 1, 22, 14]
    ids, types, offsets, batch = inputs(config, lengths, generator)
    labels = torch.randint(0, config.num_labels, (len(lengths),), generator=generator)
    out = model(**batch, labels=labels, output_hidden_states=True, output_attentions=True)
    out.loss.backward()
    tensors = {f"weight.{k}": v for k, v in weights.items()}
    tensors |= {"ids": ids, "token_types": types, "offsets": offsets, "labels": labels}
    tensors |= {"logits": out.logits, "loss": out.loss}
    tensors |= {f"hidden_states.{i}": real(h, batch) for i, h in enumerate(out.hidden_states)}
    return config, tensors | attention_maps(out.attentions, batch) | gradients(model)


def masked_lm(family):
    config_class, _, model_class, sizes, tied = classes(family)
    config = config_class(**sizes)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED + 2)
    model = randomised(model_class._from_config(config, attn_implementation="eager"))
    weights = dict(model.state_dict())
    ids, types, offsets, batch = inputs(config, [7, 20, 3], generator)
    total = int(offsets[-1])
    chosen = torch.randperm(total, generator=generator)[: total // 4].sort().values
    targets = torch.randint(0, config.vocab_size, (len(chosen),), generator=generator)
    logits = real(model(**batch).logits, batch)
    loss = torch.nn.functional.cross_entropy(logits[chosen], targets)
    loss.backward()
    tensors = {f"weight.{k}": v for k, v in weights.items() if k not in tied}
    tensors |= {"ids": ids, "token_types": types, "offsets": offsets, "positions": chosen, "targets": targets}
    return config, tensors | {"logits": logits, "loss": loss} | gradients(model)


def trajectory(family, steps=20, batch_size=4):
    """The Hugging Face Trainer's update for 20 steps: AdamW, linear schedule with warmup, clipping; no dropout."""
    config_class, model_class, _, sizes, _ = classes(family)
    config = config_class(**sizes, num_labels=2)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED + 3)
    model = randomised(model_class._from_config(config)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tensors = {f"weight.{k}": v.clone() for k, v in model.state_dict().items()}
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=5e-5, betas=(0.9, 0.999), eps=1e-8)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 5, steps)
    losses, norms, lrs = [], [], []
    for step in range(steps):
        lengths = torch.randint(1, 23, (batch_size,), generator=generator).tolist()
        ids, types, offsets, batch = inputs(config, lengths, generator)
        labels = torch.randint(0, config.num_labels, (batch_size,), generator=generator)
        tensors |= {f"{step}.ids": ids, f"{step}.token_types": types, f"{step}.offsets": offsets}
        tensors |= {f"{step}.labels": labels}
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        losses.append(loss.item())
        lrs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    tensors |= {"losses": torch.tensor(losses), "grad_norms": torch.tensor(norms), "lrs": torch.tensor(lrs)}
    return config, tensors | {f"final.{k}": v for k, v in model.state_dict().items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=list(FAMILIES), metavar="FAMILY")
    torch.use_deterministic_algorithms(True)
    for family in parser.parse_args().families:
        tensors, configs = {}, {}
        for section in [classifier, masked_lm, trajectory]:
            name = section.__name__
            config, made = section(family)
            configs[f"{name}.config"] = config.to_json_string()
            tensors |= {f"{name}.{key}": value for key, value in made.items()}
        save(f"{family}.safetensors", tensors, **configs)


if __name__ == "__main__":
    main()

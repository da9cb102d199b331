"""What PyTorch, transformers, scikit-learn and peft compute for the techniques of fine-tuning: writes techniques.json and
lora.safetensors beside this file.

Run with torch, transformers, scikit-learn and peft; the versions are stored in the files.
"""

import json
import pathlib

import numpy
import peft
import safetensors.torch
import sklearn
import torch
import transformers
from sklearn.utils.class_weight import compute_class_weight
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import optimization

HERE = pathlib.Path(__file__).parent
STEPS = 200
PEAK = 1e-3


def learning_rates(make, **arguments):
    """The learning rates of `STEPS` updates."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = make(optimizer, **arguments)
    rates = []
    for _ in range(STEPS):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def schedules():
    o = optimization
    total = {"num_training_steps": STEPS}
    rows = []
    for warmup in (0, 20, 37):
        w = {"num_warmup_steps": warmup}
        rows += [
            ("linear", w, {}, learning_rates(o.get_linear_schedule_with_warmup, **w, **total)),
            ("cosine", w, {}, learning_rates(o.get_cosine_schedule_with_warmup, **w, **total)),
            ("constant", w, {}, learning_rates(o.get_constant_schedule_with_warmup, **w)),
        ]
        for power, lr_end in ((1.0, 1e-7), (2.0, 0.0), (0.5, 1e-4), (3.0, 5e-4)):
            numbers = {"power": power, "lr_end": lr_end}
            rates = learning_rates(o.get_polynomial_decay_schedule_with_warmup, **w, **total, **numbers)
            rows.append(("polynomial", w, numbers, rates))
        for decay, shape, lowest in ((20, "cosine", 0.0), (50, "linear", 0.1), (163, "1-sqrt", 0.0), (60, "1-sqrt", 0.05)):
            numbers = {"num_decay_steps": decay, "decay_type": shape, "min_lr_ratio": lowest}
            rates = learning_rates(o.get_wsd_schedule, **w, **total, **numbers)
            rows.append(("wsd", w, numbers, rates))
    return [{"name": name, **warmup, **numbers, "lr": rates} for name, warmup, numbers, rates in rows]


def losses(generator):
    rows = []
    for classes, weights, smoothing in (
        (2, None, 0.1),
        (3, [0.3, 0.7, 2.0], 0.0),
        (3, [0.3, 0.7, 2.0], 0.2),
        (5, [1.0, 4.0, 0.25, 1.5, 0.1], 0.5),
        (2, None, 0.0),
    ):
        logits = (3 * torch.randn(7, classes, generator=generator, dtype=torch.float64)).requires_grad_()
        labels = torch.randint(classes, (7,), generator=generator)
        weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        loss = torch.nn.CrossEntropyLoss(weight, label_smoothing=smoothing)(logits, labels)
        loss.backward()
        rows.append(
            {
                "class_weights": weights,
                "label_smoothing": smoothing,
                "logits": logits.tolist(),
                "labels": labels.tolist(),
                "loss": loss.item(),
                "gradient": logits.grad.tolist(),
            }
        )
    return rows


def balanced():
    rows = []
    for counts in ([30, 10], [5, 5, 5], [1, 2, 97]):
        labels = numpy.repeat(numpy.arange(len(counts)), counts)
        weights = compute_class_weight("balanced", classes=numpy.arange(len(counts)), y=labels)
        rows.append({"counts": counts, "weights": weights.tolist()})
    return rows


def averages(generator):
    """An average of weights that go their way, by torch.optim.swa_utils."""
    model = torch.nn.Linear(3, 2, bias=False, dtype=torch.float64)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    values, averaged = [], []
    for _ in range(6):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=generator, dtype=torch.float64))
        average.update_parameters(model)
        values.append(model.weight.flatten().tolist())
        averaged.append(average.module.weight.flatten().tolist())
    return {"decay": 0.9, "values": values, "averages": averaged}


def optimizers(generator):
    """Steps with learning rates by parameter group, as layer-wise decay makes them; the gradient of `sum p^4 / 4` is p^3."""
    rows = []
    for name, make in (
        ("adamw", lambda groups: torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
        ("sgd", lambda groups: torch.optim.SGD(groups, momentum=0.9, weight_decay=0.1)),
    ):
        first = [torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
        parameters = [torch.nn.Parameter(value.clone()) for value in first]
        factors = [1.0, 0.5, 0.25]
        optimizer = make([{"params": [p], "lr": 0.05 * factor} for p, factor in zip(parameters, factors)])
        for _ in range(5):
            optimizer.zero_grad()
            sum((p**4).sum() / 4 for p in parameters).backward()
            optimizer.step()
        rows.append(
            {
                "name": name,
                "factors": factors,
                "first": [value.flatten().tolist() for value in first],
                "last": [p.detach().flatten().tolist() for p in parameters],
            }
        )
    return rows


def lora():
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    base = transformers.BertForSequenceClassification(config).double().eval()
    tensors = {f"weight.{key}": value.clone() for key, value in base.state_dict().items() if "position_ids" not in key}
    settings = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        lora_alpha=6,
        lora_dropout=0.0,
        target_modules=["query", "value", "intermediate.dense"],
        modules_to_save=["pooler.dense", "classifier"],
    )
    model = peft.get_peft_model(base, settings).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, dtype=torch.float64))
    ids = torch.randint(1, 50, (3, 9))
    labels = torch.tensor([2, 0, 1])
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    out.loss.backward()
    tensors |= {"ids": ids, "labels": labels, "logits": out.logits.detach(), "loss": out.loss.detach()}
    for name, parameter in model.named_parameters():
        key = name.replace(".default", "").replace("modules_to_save.", "")
        if "lora_" in name:
            tensors[f"adapter.{key}"] = parameter.detach().clone()
        if parameter.grad is not None:
            tensors[f"grad.{key}"] = parameter.grad
    merged = model.merge_and_unload()
    for key, value in merged.state_dict().items():
        if "query.weight" in key or "value.weight" in key or "intermediate.dense.weight" in key:
            tensors[f"merged.{key}"] = value
    floats = {k: (v.float() if v.is_floating_point() else v).contiguous().clone() for k, v in tensors.items()}
    safetensors.torch.save_file(
        floats,
        HERE / "lora.safetensors",
        {"config": config.to_json_string(use_diff=False), "peft": peft.__version__, "torch": torch.__version__},
    )


def main():
    generator = torch.Generator().manual_seed(5)
    out = {
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "sklearn": sklearn.__version__,
        },
        "peak_lr": PEAK,
        "schedules": schedules(),
        "losses": losses(generator),
        "balanced": balanced(),
        "averages": averages(generator),
        "optimizers": optimizers(generator),
    }
    (HERE / "techniques.json").write_text(json.dumps(out) + "\n")
    lora()


if __name__ == "__main__":
    main()

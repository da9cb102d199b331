"""Loads a model with transformers' Auto classes and compares its logits with those of Vitrine.

    python check_saved.py DIR [MODEL]

DIR is what the example save_logits wrote: the model, and logits.json: [{"text": .., "ids": [..], "logits": [..]}, ..]. MODEL is the
folder that it was given, to load that instead, such as crates/cli/assets/embedded, whose weights are in half precision.
A BertForMaskedLM is compared at every token, any other model as a classifier.
"""

import json
import pathlib
import sys

import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

folder = pathlib.Path(sys.argv[1])
source = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else folder
tokenizer = AutoTokenizer.from_pretrained(source)
is_masked_lm = (AutoConfig.from_pretrained(source).architectures or [""])[0].endswith("ForMaskedLM")
auto = AutoModelForMaskedLM if is_masked_lm else AutoModelForSequenceClassification
model, info = auto.from_pretrained(source, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
stored = next(model.parameters()).dtype
model.float().eval()
worst = 0.0
for case in json.loads((folder / "logits.json").read_text()):
    encoded = tokenizer(case["text"], return_tensors="pt", truncation=True, max_length=512)
    assert encoded["input_ids"][0].tolist() == case["ids"], case["text"]
    with torch.no_grad():
        expected = model(**encoded).logits[0].flatten()
    got = torch.tensor(case["logits"])
    assert got.shape == expected.shape and torch.isfinite(got).all(), (case["text"], got.shape, expected.shape)
    worst = max(worst, ((got - expected).abs().max() / expected.abs().max()).item())
kind = "masked language model" if is_masked_lm else f"labels {model.config.id2label}"
print(f"{kind}, loaded in {stored}, largest relative difference of logits {worst:.2e}")
assert worst <= 1e-4

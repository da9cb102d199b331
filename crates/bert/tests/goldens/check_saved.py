"""Loads a folder saved by Vitrine with transformers' Auto classes and compares logits.

    python check_saved.py DIR     # DIR holds the model, and logits.json: [{"text": .., "ids": [..], "logits": [..]}, ..]
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = pathlib.Path(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(folder)
model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
model.eval()
worst = 0.0
for case in json.loads((folder / "logits.json").read_text()):
    encoded = tokenizer(case["text"], return_tensors="pt", truncation=True, max_length=512)
    assert encoded["input_ids"][0].tolist() == case["ids"], case["text"]
    with torch.no_grad():
        expected = model(**encoded).logits[0]
    got = torch.tensor(case["logits"])
    worst = max(worst, ((got - expected).abs().max() / expected.abs().max()).item())
print(f"labels {model.config.id2label}, largest relative difference of logits {worst:.2e}")
assert worst <= 1e-4

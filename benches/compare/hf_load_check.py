"""Loads a folder saved by Vitrine with transformers' Auto classes, as it is, and compares logits.

    vitrine predict --model DIR --file TEXTS --json | python hf_load_check.py DIR TEXTS

TEXTS is what `vitrine predict --file` reads: a text a line, or JSON lines with a field `text`. Every line of the
predictions has `label`, `score`, `logits` and `tokens`. The check fails (exit code 1) if a key of the weights is missing,
unexpected or of another shape, if the number of tokens or the label differs, or if logits differ by more than 1e-4 of the
largest logit of the text.
"""

import argparse
import json
import pathlib
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TOLERANCE = 1e-4


def read_texts(path):
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    try:
        rows = [json.loads(line) for line in lines]
    except json.JSONDecodeError:
        rows = []
    if rows and all(isinstance(row, dict) for row in rows):
        return [row["text"] for row in rows]
    return [line.removesuffix("\r") for line in lines]


def load(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: keys for kind, keys in info.items() if keys}
    if wrong:
        sys.exit(f"{folder}: the weights do not fit the config: {wrong}")
    return tokenizer, model.float().eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("texts", type=pathlib.Path)
    parser.add_argument("--max-length", type=int, help="tokens read of a text; the model's limit if not given")
    arguments = parser.parse_args()
    tokenizer, model = load(arguments.folder)
    limit = arguments.max_length or model.config.max_position_embeddings
    texts = read_texts(arguments.texts)
    predictions = [json.loads(line) for line in sys.stdin if line.strip()]
    if len(predictions) != len(texts) or not texts:
        sys.exit(f"{len(texts)} texts, {len(predictions)} predictions")
    failures, worst = 0, 0.0
    print(f"{'label':<12} {'tokens':>6} {'difference':>10}  text")
    for text, prediction in zip(texts, predictions):
        encoded = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            expected = model(**encoded).logits[0]
        label, tokens = model.config.id2label[int(expected.argmax())], encoded["input_ids"].shape[1]
        got = torch.tensor(prediction["logits"])
        same_shape = got.shape == expected.shape
        difference = ((got - expected).abs().max() / expected.abs().max()).item() if same_shape else float("nan")
        agrees = difference <= TOLERANCE and label == prediction["label"] and tokens == prediction["tokens"]
        failures += not agrees
        worst = max(worst, difference) if difference == difference else float("nan")
        note = "" if agrees else f"   DIFFERS: transformers has {label}, {tokens} tokens, {expected.tolist()}"
        print(f"{prediction['label']:<12} {prediction['tokens']:>6} {difference:>10.1e}  {text[:60]!r}{note}")
    print(f"{len(texts)} texts, {failures} differ; largest relative difference of logits {worst:.1e} (allowed {TOLERANCE:.0e})")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

"""Makes attributions.safetensors: what captum says of all-MiniLM-L6-v2 under a fixed classifier, on ten reviews, one of 512 tokens.

    python make_attributions.py DIR        # DIR: sentence-transformers/all-MiniLM-L6-v2

The classifier of two classes: `weight[k, c] = 0.1 cos(0.7 c + k)`, `bias = [0.1, -0.1]`. Of each text, for class 1, a number a token (the
sum over the columns of the word embeddings):

    gradient_x_input     LayerGradientXActivation on `word_embeddings`
    integrated.pad/mask  LayerIntegratedGradients there, 16 steps of Gauss-Legendre (4 for the text of 512 tokens), from [PAD] or
                         [MASK] in the place of every token but [CLS] and [SEP]
    occlusion            FeatureAblation of one token id after the other by [MASK]; zero in the text of 512 tokens

The model runs in float64 from float32 weights. Texts are those of `crates/bert/tests/goldens/make_taps.py`.
"""

import importlib.metadata
import pathlib
import re
import sys

import torch
import transformers
from captum.attr import FeatureAblation, LayerGradientXActivation, LayerIntegratedGradients
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
STEPS, STEPS_OF_LONG = 16, 4


def texts():
    """The list TEXTS of the other script, without running it."""
    source = (HERE / "../../../bert/tests/goldens/make_taps.py").read_text()
    found = {}
    exec(re.search(r"^TEXTS = \[.*?^\]", source, re.M | re.S).group(), found)
    return found["TEXTS"]


def main(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.BertConfig.from_pretrained(folder, num_labels=2)
    model = transformers.BertForSequenceClassification(config)
    model.bert = transformers.BertModel.from_pretrained(folder, dtype=torch.float32)
    columns = torch.arange(config.hidden_size, dtype=torch.float64)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.stack([0.1 * torch.cos(0.7 * columns + k) for k in range(2)]))
        model.classifier.bias.copy_(torch.tensor([0.1, -0.1]))
    model = model.double().eval()
    words = model.bert.embeddings.word_embeddings

    def logit(ids):
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 1]

    stored = {name: [] for name in ["ids", "logits", "gradient_x_input", "integrated.pad", "integrated.mask", "occlusion"]}
    offsets = [0]
    for text in texts():
        ids = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")["input_ids"]
        offsets.append(offsets[-1] + ids.shape[1])
        stored["ids"].append(ids[0])
        stored["logits"].append(logit(ids))
        by_token = LayerGradientXActivation(logit, words).attribute(ids).sum(-1)[0]
        stored["gradient_x_input"].append(by_token)
        for name, id in [("pad", tokenizer.pad_token_id), ("mask", tokenizer.mask_token_id)]:
            baseline = torch.full_like(ids, id)
            baseline[0, 0], baseline[0, -1] = ids[0, 0], ids[0, -1]
            integrated = LayerIntegratedGradients(logit, words).attribute(
                ids, baselines=baseline, n_steps=STEPS if ids.shape[1] < 512 else STEPS_OF_LONG, method="gausslegendre", internal_batch_size=2
            )
            stored[f"integrated.{name}"].append(integrated.sum(-1)[0])
            print(len(ids[0]), name, integrated.sum().item(), (logit(ids) - logit(baseline)).item())
        occluded = torch.zeros(ids.shape[1], dtype=torch.float64)
        if ids.shape[1] < 512:
            occluded = FeatureAblation(logit).attribute(ids, baselines=tokenizer.mask_token_id)[0].double()
            occluded[[0, -1]] = 0
        stored["occlusion"].append(occluded)
    tensors = {name: torch.cat(pieces).detach() for name, pieces in stored.items()}
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    tensors["offsets"] = torch.tensor(offsets)
    versions = {name: importlib.metadata.version(name) for name in ["torch", "transformers", "captum"]}
    save_file(tensors, HERE / "attributions.safetensors", metadata={**versions, "steps": f"{STEPS}, {STEPS_OF_LONG}"})
    print((HERE / "attributions.safetensors").stat().st_size, "bytes", versions)


main(sys.argv[1])

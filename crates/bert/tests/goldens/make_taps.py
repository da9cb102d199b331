"""Makes minilm_taps.safetensors: what transformers' eager attention shows of all-MiniLM-L6-v2 on ten texts, one of 512 tokens.

    python make_taps.py DIR        # DIR: sentence-transformers/all-MiniLM-L6-v2

Of each text and layer: hidden states, attention probabilities, and the gradient of probabilities of the loss
`sum_c cos(c) h[0, c]`, h being the last hidden state. A whole map of 512 tokens would be 12 MB, so of each tensor the entries
`(1000003 k + 17) mod numel` for k < 64 are stored, and its Euclidean norm. The model runs in float64 from float32 weights.
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
TEXTS = [
    "not bad at all",
    "This film was not good.",
    "A wonderful, warm and funny picture that I would gladly see again.",
    "I wanted to like it, but the plot fell apart after twenty minutes and never recovered.",
    "Terrible.",
    "Two hours of my life that I will never get back; avoid.",
    "The acting is fine. The story is not. Whoever edited the last act should have cut half of it, and the music does not help.",
    "It is neither the best nor the worst of his films, yet it stays with you, which is more than I can say of most of them.",
    "An old projector, a rainy night, and three people who cannot stand each other: what begins as a joke ends as a quiet tragedy.",
    "The first half is slow and the second half is loud, and I could not say which of the two I enjoyed less. " * 30,
]
SAMPLES = 64


def sampled(tensor):
    flat = tensor.detach().reshape(-1)
    index = (torch.arange(SAMPLES) * 1000003 + 17) % flat.numel()
    return flat[index].float(), flat.norm().float()


def main(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).double().eval()
    ids, offsets, found = [], [0], {}
    for text in TEXTS:
        batch = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
        ids += batch["input_ids"][0].tolist()
        offsets.append(len(ids))
        out = model(**batch, output_hidden_states=True, output_attentions=True)
        for attention in out.attentions:
            attention.retain_grad()
        first = out.last_hidden_state[0, 0]
        (first * torch.cos(torch.arange(len(first), dtype=first.dtype))).sum().backward()
        tensors = {f"hidden.{i}": h for i, h in enumerate(out.hidden_states)}
        tensors |= {f"attention.{i}": a for i, a in enumerate(out.attentions)}
        tensors |= {f"gradient.{i}": a.grad for i, a in enumerate(out.attentions)}
        for name, tensor in tensors.items():
            found.setdefault(name, []).append(sampled(tensor))
    stored = {name: torch.stack([values for values, _ in pairs]) for name, pairs in found.items()}
    stored |= {f"norm.{name}": torch.stack([norm for _, norm in pairs]) for name, pairs in found.items()}
    stored |= {"ids": torch.tensor(ids), "offsets": torch.tensor(offsets)}
    metadata = {"torch": torch.__version__, "transformers": transformers.__version__}
    save_file(stored, HERE / "minilm_taps.safetensors", metadata=metadata)
    print([b - a for a, b in zip(offsets, offsets[1:])], (HERE / "minilm_taps.safetensors").stat().st_size, "bytes")


main(sys.argv[1])

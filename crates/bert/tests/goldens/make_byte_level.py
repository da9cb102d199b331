"""Writes byte_level.json: small byte-level BPE tokenizers as people's folders hold them, and the ids that transformers gives
them, in the form of tokenizers.json (see make_tokenizers.py).

    pip install transformers tokenizers    # versions: see "versions" in byte_level.json
    python make_byte_level.py
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import tokenizers
import transformers
from transformers import AutoTokenizer

TEXTS = [
    "The film was good, not bad. It's the best!",
    "café 猫 👍🏽\u3000x\u0000y\n\n  spaces  ",
    "x <mask> y<mask></s> and <s> <pad> <unk> <x>",
    "",
    " the",
]
CORPUS = ["The film was good, not bad.", " the best film of the year", "It's not the best"] * 4
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

trained = tokenizers.ByteLevelBPETokenizer()
trained.train_from_iterator(CORPUS, vocab_size=285, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
MODEL = json.loads(trained.to_str())["model"]
VOCAB, MERGES = MODEL["vocab"], MODEL["merges"]
PAIRS = "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in MERGES)


def token(content, number, special=True, **flags):
    return {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": not special, "special": special, **flags}


ADDED = [token(content, number) for number, content in enumerate(SPECIAL)]
HUB = ADDED[:4] + [token("<mask>", 4, lstrip=True)]


def file(prefix=False, added=ADDED, merges=MERGES, **model):
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
                           "add_prefix_space": prefix},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": VOCAB, "merges": merges, **model},
    }


def decoder(tokens):
    return {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in tokens}


BPE = {"vocab.json": VOCAB, "merges.txt": PAIRS}
STRINGS = [" ".join(pair) for pair in MERGES]
CASES = [
    ("vocabulary and merges", BPE, []),
    ("vocabulary, merges and class", BPE | {"tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}}, []),
    ("the hub's roberta-base", {"tokenizer.json": file(added=HUB), "tokenizer_config.json": {"model_max_length": 512}}, []),
    ("class", {"tokenizer.json": file(), "tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}}, []),
    ("fast class", {"tokenizer.json": file(), "tokenizer_config.json": {"tokenizer_class": "RobertaTokenizerFast"}}, []),
    ("prefix by the config", BPE | {"tokenizer_config.json": {"add_prefix_space": True}}, []),
    ("prefix against the file", {"tokenizer.json": file(), "tokenizer_config.json": {"add_prefix_space": True}},
     ["add_prefix_space", "counts"]),
    ("prefix by the file only", {"tokenizer.json": file(prefix=True), "tokenizer_config.json": {}},
     ["add_prefix_space", "counts"]),
    ("decoder", {"tokenizer.json": file(), "tokenizer_config.json": {
        "tokenizer_class": "RobertaTokenizer", "added_tokens_decoder": decoder(HUB)}}, []),
    ("an added token", {"tokenizer.json": file(added=HUB + [token("<x>", len(VOCAB), special=False)]),
                        "tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}}, []),
    ("old merges", {"tokenizer.json": file(merges=STRINGS), "tokenizer_config.json": {}}, []),
    ("as it is", {"tokenizer.json": file(prefix=True), "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast"}}, []),
    ("the file alone", {"tokenizer.json": file(added=HUB)}, []),
]
WORDS = {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
         "vocab": VOCAB}
REFUSED = [
    ("another model", {"tokenizer.json": file() | {"model": WORDS}, "tokenizer_config.json": {}},
     ["model.type", "WordPiece", "RobertaTokenizer"]),
    ("another class", {"tokenizer.json": file(), "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}},
     ["model.type", "BPE", "WordPiece"]),
    ("no merges", {"vocab.json": VOCAB, "vocab.txt": "a\n", "tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}},
     ["RobertaTokenizer", "vocab.json and merges.txt"]),
    ("the vocabulary of another class", BPE | {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}},
     ["vocab.json", "[UNK]"]),
    ("a bad merge", BPE | {"merges.txt": PAIRS + "a b c\n"}, ["merges.txt", "two tokens"]),
    ("a merge of unknown tokens", BPE | {"merges.txt": PAIRS + "猫 猫\n"}, ["vocab.json"]),
    ("no special tokens", BPE | {"vocab.json": {k: v for k, v in VOCAB.items() if k != "<s>"}}, ["<s>"]),
    ("ids that are none", BPE | {"vocab.json": VOCAB | {"x1": -1}}, ["vocab.json"]),
    ("a flag of another type", BPE | {"tokenizer_config.json": {"add_prefix_space": "yes"}}, ["add_prefix_space"]),
]


def texts_of(files):
    files = {"config.json": {"model_type": "roberta"}} | files
    return {name: content if isinstance(content, str) else json.dumps(content) for name, content in files.items()}


def main():
    cases, refused = [], []
    for name, files, note in CASES:
        files = texts_of(files)
        with tempfile.TemporaryDirectory() as folder:
            for file_name, text in files.items():
                Path(folder, file_name).write_text(text, encoding="utf-8")
            tokenizer = AutoTokenizer.from_pretrained(folder)
            ids = [tokenizer(text)["input_ids"] for text in TEXTS]
        cases.append({"name": name, "files": files, "note": note, "ids": ids})
    for name, files, words in REFUSED:
        refused.append({"name": name, "files": texts_of(files), "words": words})
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    out = {"versions": versions, "texts": TEXTS, "cases": cases, "refused": refused}
    path = Path(__file__).parent / "byte_level.json"
    path.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

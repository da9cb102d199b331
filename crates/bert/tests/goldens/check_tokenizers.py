"""Loads tokenizers that Vitrine saved, in transformers and in the bare tokenizers library, and compares ids.

    VITRINE_SAVED=DIR cargo test -p vitrine-bert --test tokenizer saved     # writes DIR/N/: files, ids.json
    python check_tokenizers.py DIR
"""

import json
import os
import sys
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import tokenizers
from transformers import AutoTokenizer

folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
wrong = 0
for folder in folders:
    expected = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
    auto = AutoTokenizer.from_pretrained(folder)
    bare = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, ids in zip(expected["texts"], expected["ids"], strict=True):
        for name, got in [("AutoTokenizer", auto(text)["input_ids"]), ("tokenizers", bare.encode(text).ids)]:
            if got != ids:
                wrong += 1
                print(f"{folder.name} ({expected['name']}), {name}: {got}, not {ids}")
    if auto.model_max_length != expected["positions"]:
        wrong += 1
        print(f"{folder.name}: model_max_length {auto.model_max_length}")
print(f"{len(folders)} tokenizers, {wrong} differences")
sys.exit(1 if wrong or not folders else 0)

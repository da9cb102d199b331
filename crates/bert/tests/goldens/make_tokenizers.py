"""Writes tokenizers.json: small tokenizers as people's folders hold them, and the ids that transformers gives them.

    pip install transformers tokenizers    # versions: see "versions" in tokenizers.json
    python make_tokenizers.py

Each case has the tokenizer's files. "ids" are AutoTokenizer's for TEXTS. "file_ids" are those of the bare tokenizers library
for tokenizer.json, where that is what the case is about. "refused" holds words of the error that is expected instead, where
Vitrine refuses on purpose what transformers accepts (or does not).
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
    "NOT bad café [MASK] [SEP] <x> new york",
    "New York, not<x>bad\u3000猫猫! ca\u0301fe\u0000s",
    "  badly " + "a" * 101 + " x",
]
TOKENS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] not bad ##ly ! cafe 猫 NOT café [ ] a x n ##ew york mask , New York bad! ##猫 < >"
).split()
CONFIG = {"model_type": "bert", "vocab_size": 64, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
          "intermediate_size": 8}
VOCAB = "\n".join(TOKENS) + "\n"
SIZE = len(TOKENS)
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                       "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}},
}


def token(content, number, special=True, **flags):
    return {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": not special, "special": special, **flags}


SPECIAL = [token(content, number) for number, content in enumerate(TOKENS[:5])]


def bert(lowercase=True, strip=None, chinese=True, clean=True):
    return {"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": chinese, "strip_accents": strip,
            "lowercase": lowercase}


def sequence(*names):
    return {"type": "Sequence", "normalizers": [{"type": name} for name in names]}


def file(normalizer, added=SPECIAL, pre={"type": "BertPreTokenizer"}, post=TEMPLATE, model={}, tokens=TOKENS, **more):
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre, "post_processor": post, "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {token: id for id, token in enumerate(tokens)}, **model},
        **more,
    }, ensure_ascii=False)


def vocab(**more):
    return {"vocab.txt": VOCAB, **{name.replace("__", "."): json.dumps(value) for name, value in more.items()}}


def settings(**more):
    return {"tokenizer_config.json": json.dumps(more)}


AS_IT_IS = settings(tokenizer_class="PreTrainedTokenizerFast")
BERT = settings(tokenizer_class="BertTokenizer")
X = {"content": "<x>", "special": False, "normalized": True, "lstrip": False, "rstrip": False, "single_word": False}

# name, files, words of the note that says which file counts (none: no note)
CASES = [
    ("vocab.txt alone", vocab(), []),
    ("cased by setting", vocab() | settings(do_lower_case=False), []),
    ("accents kept", vocab() | settings(strip_accents=False), []),
    ("accents stripped, cased", vocab() | settings(do_lower_case=False, strip_accents=True), []),
    ("chinese words", vocab() | settings(tokenize_chinese_chars=False), []),
    ("a setting beats tokenizer.json", {"tokenizer.json": file(bert(True))} | settings(do_lower_case=False),
     ["lowercase", "do_lower_case"]),
    ("a default beats tokenizer.json", {"tokenizer.json": file(bert(False))} | settings(),
     ["lowercase", "do_lower_case"]),
    ("tokenizer.json beats a setting", {"tokenizer.json": file(bert(False))}
     | settings(do_lower_case=True, tokenizer_class="PreTrainedTokenizerFast"), ["do_lower_case", "lowercase"]),
    ("BertTokenizer replaces a normalizer", {"tokenizer.json": file(sequence("NFC"))} | BERT, ["normalizer"]),
    ("BertTokenizer replaces a limit", {"tokenizer.json": file(bert(), model={"max_input_chars_per_word": 2})} | BERT,
     ["max_input_chars_per_word"]),
    ("BertTokenizer replaces clean_text", {"tokenizer.json": file(bert(clean=False))} | BERT, ["clean_text"]),
    ("BertTokenizer adds [CLS] and [SEP]", {"tokenizer.json": file(bert(), post=None)} | BERT, []),
    ("own normalizer", {"tokenizer.json": file(sequence("NFD", "Lowercase", "StripAccents"))} | AS_IT_IS, []),
    ("no normalizer", {"tokenizer.json": file(None)} | AS_IT_IS, []),
    ("own pre-tokenizer", {"tokenizer.json": file(bert(), pre={"type": "Whitespace"})} | AS_IT_IS, []),
    ("BertProcessing", {"tokenizer.json": file(bert(), post={"type": "BertProcessing", "sep": ["[SEP]", 3],
                                                             "cls": ["[CLS]", 2]})} | AS_IT_IS, []),
    ("other prefix", {"tokenizer.json": file(bert(), model={"continuing_subword_prefix": "@@"})} | AS_IT_IS, []),
    ("TokenizersBackend", {"tokenizer.json": file(bert(False))} | settings(tokenizer_class="TokenizersBackend"), []),
    ("class of config.json", {"config.json": json.dumps(CONFIG | {"tokenizer_class": "PreTrainedTokenizerFast"}),
                              "tokenizer.json": file(bert(False))}, []),
    ("truncation of tokenizer.json", {"tokenizer.json": file(
        bert(), padding={"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                         "pad_type_id": 0, "pad_token": "[PAD]"})} | BERT, []),
    ("vocab.txt of another model", {"tokenizer.json": file(bert()), "vocab.txt": VOCAB.replace("not\n", "zz\nnot\n")} | BERT,
     ["vocab.txt", "tokens differ"]),
    ("added_tokens.json", vocab(added_tokens__json={"<x>": SIZE, "new york": SIZE + 1}), []),
    ("added_tokens.json beside tokenizer.json", {"tokenizer.json": file(bert()),
                                                 "added_tokens.json": json.dumps({"<x>": SIZE})} | BERT, []),
    ("added_tokens of tokenizer.json", {"tokenizer.json": file(bert(), SPECIAL + [token("<x>", SIZE, False)])} | BERT, []),
    ("added_tokens_decoder", vocab() | settings(added_tokens_decoder={str(SIZE): X}), []),
    ("added_tokens_decoder hides other files", vocab(added_tokens__json={"<x>": SIZE},
                                                     special_tokens_map__json={"cls_token": "[MASK]"})
     | settings(added_tokens_decoder={}), []),
    ("added_tokens_decoder with other ids", vocab() | settings(added_tokens_decoder={"100": X | {"content": "[UNK]"}}),
     ["other ids", "[UNK]"]),
    ("lstrip and rstrip", vocab() | settings(added_tokens_decoder={str(SIZE): X | {"lstrip": True, "rstrip": True}}), []),
    ("single_word", vocab() | settings(added_tokens_decoder={"16": X | {"content": "x", "single_word": True}}), []),
    ("additional_special_tokens", vocab() | settings(additional_special_tokens=["<x>"]), []),
    ("extra_special_tokens", vocab() | settings(extra_special_tokens=["<x>"], additional_special_tokens=["new york"]), []),
    ("extra_special_tokens by name", vocab() | settings(extra_special_tokens={"x_token": "<x>"}), []),
    ("a token of its own name", vocab() | settings(x_token="<x>"), []),
    ("special_tokens_map.json", vocab(special_tokens_map__json={"additional_special_tokens": ["<x>"]}), []),
    ("special_tokens_map.json and the setting", vocab(special_tokens_map__json={"additional_special_tokens": ["<x>"]})
     | settings(additional_special_tokens=["new york"]), []),
    ("special_tokens_map.json renames", vocab(special_tokens_map__json={"cls_token": "[MASK]"})
     | settings(cls_token="[PAD]"), []),
    ("a special token as an object", vocab() | settings(
        cls_token={"__type": "AddedToken", "content": "[PAD]", "lstrip": False, "rstrip": False, "normalized": False,
                   "single_word": False}), []),
    ("no mask by setting", {"vocab.txt": VOCAB.replace("[MASK]", "zzz")} | settings(mask_token=None), []),
    ("blank last line", {"vocab.txt": VOCAB + "\n\n"}, []),
    ("blank lines within", {"vocab.txt": VOCAB.replace("not\n", "\n\nnot\n")}, []),
    ("a token twice", {"vocab.txt": VOCAB + "not\n"}, []),
    ("Windows lines", {"vocab.txt": VOCAB.replace("\n", "\r\n")}, []),
    ("spaces after tokens", {"vocab.txt": VOCAB.replace("\n", " \t\n")}, []),
    ("a byte order mark", {"vocab.txt": "\ufeff" + VOCAB}, []),
    ("no limit", vocab() | settings(model_max_length=1000000000000000019884624838656), []),
    ("ElectraTokenizerFast", {"tokenizer.json": file(bert(False))} | settings(tokenizer_class="ElectraTokenizerFast"),
     ["lowercase"]),
    ("DistilBertTokenizer", vocab() | settings(tokenizer_class="DistilBertTokenizer", do_lower_case=False), []),
    ("MobileBertTokenizer", vocab() | settings(tokenizer_class="MobileBertTokenizer"), []),
]

# name, files, words of the error
REFUSED = [
    ("do_lower_case as a string", vocab() | settings(do_lower_case="true"), ["tokenizer_config.json", "do_lower_case"]),
    ("do_lower_case null", vocab() | settings(do_lower_case=None), ["do_lower_case", "true or false"]),
    ("strip_accents as a number", vocab() | settings(strip_accents=1), ["strip_accents"]),
    ("tokenize_chinese_chars as a string", vocab() | settings(tokenize_chinese_chars="no"), ["tokenize_chinese_chars"]),
    ("model_max_length as a string", vocab() | settings(model_max_length="512"), ["model_max_length", "512"]),
    ("model_max_length 0", vocab() | settings(model_max_length=0), ["model_max_length"]),
    ("cls_token as a number", vocab() | settings(cls_token=2), ["cls_token"]),
    ("additional_special_tokens as a string", vocab() | settings(additional_special_tokens="<x>"),
     ["additional_special_tokens"]),
    ("added_tokens_decoder of strings", vocab() | settings(added_tokens_decoder={str(SIZE): "<x>"}),
     ["added_tokens_decoder"]),
    ("special tokens split", vocab() | settings(split_special_tokens=True), ["split_special_tokens"]),
    ("cut in the middle", vocab() | settings(truncation_side="middle"), ["truncation_side", "middle"]),
    ("RobertaTokenizer", vocab() | settings(tokenizer_class="RobertaTokenizer"), ["tokenizer_class", "RobertaTokenizer"]),
    ("BertJapaneseTokenizer", vocab() | settings(tokenizer_class="BertJapaneseTokenizer"), ["BertJapaneseTokenizer"]),
    ("class of config.json", vocab(config__json=CONFIG | {"tokenizer_class": "BertJapaneseTokenizer"}),
     ["BertJapaneseTokenizer"]),
    ("a class without its file", vocab() | AS_IT_IS, ["PreTrainedTokenizerFast", "tokenizer.json"]),
    ("BPE", {"tokenizer.json": file(bert(), model={"type": "BPE"})} | BERT, ["BPE", "WordPiece"]),
    ("no type", {"tokenizer.json": json.dumps({"version": "1.0", "model": {"vocab": {"a": 0}, "unk_token": "a"}})},
     ["model.type"]),
    ("no [CLS]", {"vocab.txt": VOCAB.replace("[CLS]", "zzz")}, ["vocab.txt", "[CLS]"]),
    ("no [UNK] and [SEP]", {"vocab.txt": VOCAB.replace("[UNK]", "zzz").replace("[SEP]", "yyy")}, ["[UNK], [SEP]"]),
    ("no [UNK] of tokenizer.json", {"tokenizer.json": file(bert(), model={"unk_token": "<unk>"})} | AS_IT_IS, ["<unk>"]),
    ("empty vocab.txt", {"vocab.txt": ""}, ["vocab.txt", "[UNK]"]),
    ("no post-processor", {"tokenizer.json": file(bert(), post=None)} | AS_IT_IS, ["post_processor"]),
    ("post-processor of other ids", {"tokenizer.json": file(bert(), post={
        "type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 2]})} | AS_IT_IS, ["[SEP]", "5", "3"]),
    ("added token behind a gap", vocab(added_tokens__json={"<x>": SIZE + 9}), ["added_tokens.json", "<x>"]),
    ("added token in a gap", {"vocab.txt": VOCAB.replace("not\n", "\n\nnot\n")} | settings(additional_special_tokens=["<x>"]),
     ["<x>", "gaps"]),
    ("a pointer for vocab.txt", {"vocab.txt": "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"},
     ["vocab.txt", "git lfs pull"]),
    ("a pointer for tokenizer.json", {"vocab.txt": VOCAB, "tokenizer.json":
                                      "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"},
     ["tokenizer.json", "git lfs pull"]),
    ("tokenizer.json cut off", {"tokenizer.json": '{"version":"1.0","decoder":'}, ["tokenizer.json"]),
    ("odd decoder", {"tokenizer.json": file(bert(), decoder={"type": "Strip"})} | AS_IT_IS, ["tokenizer.json"]),
    ("odd decoder of a BertTokenizer", {"tokenizer.json": file(bert(), decoder=[1])} | BERT, ["tokenizer.json"]),
    ("odd normalizer", {"tokenizer.json": file({"type": "Precompiled", "precompiled_charsmap": "AAAA"})} | AS_IT_IS,
     ["tokenizer.json"]),
    ("ids that no model has", {"tokenizer.json": file(bert(), model={"vocab": {"[UNK]": 4294967295}})} | BERT,
     ["4294967295", "[UNK]"]),
    ("ids that are no numbers", {"tokenizer.json": file(bert(), model={"vocab": {"[UNK]": -1}})} | BERT, ["-1"]),
]


def ids(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {"config.json": json.dumps(CONFIG), **files}.items():
            Path(folder, name).write_text(text, encoding="utf-8", newline="")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.backend_tokenizer.no_padding()
        return [tokenizer(text)["input_ids"] for text in TEXTS]


def main():
    goldens = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "texts": TEXTS,
        "cases": [{"name": name, "files": files, "note": note, "ids": ids(files)} for name, files, note in CASES],
        "refused": [{"name": name, "files": files, "words": words} for name, files, words in REFUSED],
    }
    # Without a tokenizer_config.json a tokenizer.json is used as it is, as by the bare library.
    for name, normalizer, pre in [("cased, alone", bert(False), "BertPreTokenizer"), ("default, alone", bert(), "BertPreTokenizer"),
                                  ("own, alone", sequence("NFC", "Lowercase"), "Whitespace")]:
        text = file(normalizer, pre={"type": pre})
        bare = tokenizers.Tokenizer.from_str(text)
        note = [] if name.startswith("default") else ["no tokenizer_config.json"]
        goldens["cases"].append({"name": name, "files": {"tokenizer.json": text}, "note": note,
                                 "ids": [bare.encode(text).ids for text in TEXTS]})
    text = json.dumps(goldens, ensure_ascii=False, indent=1)
    Path(__file__).with_name("tokenizers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What transformers makes of the class fields of a config.json, for tests/checkpoints.rs.

python make_config_cases.py   # transformers 5.24.0; writes config_cases.json
"""

import json
import pathlib
import tempfile

import transformers
from transformers import AutoConfig

CASES = [
    {},
    {"num_labels": 3},
    {"num_labels": 1},
    {"id2label": None},
    {"id2label": {"0": "neg", "1": "pos"}},
    {"id2label": {"1": "pos", "0": "neg"}},
    {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": None},
    {"id2label": {"0": "a", "1": "b"}, "label2id": {"b": 0, "a": 1}},
    {"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 3},
    {"num_labels": 3, "id2label": None, "label2id": None},
    {"problem_type": None},
    {"problem_type": "single_label_classification", "num_labels": 4},
    {"pad_token_id": -1},
    {"pad_token_id": None, "classifier_dropout": None, "bos_token_id": None},
    {"architectures": None, "torch_dtype": None},
    {"hidden_dropout_prob": 1.0},
    {"id2label": ["a", "b"]},
    {"hidden_size": 64.0},
    {"hidden_size": "64"},
    {"vocab_size": "many"},
]


def read(fields):
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "config.json").write_text(json.dumps({"model_type": "bert", **fields}))
        try:
            config = AutoConfig.from_pretrained(folder)
        except Exception:
            return None
        return [config.id2label[i] for i in range(config.num_labels)]


cases = [{"fields": fields, "classes": read(fields)} for fields in CASES]
out = {"transformers": transformers.__version__, "cases": cases}
text = json.dumps(out, indent=1) + "\n"
pathlib.Path(__file__).with_name("config_cases.json").write_text(text)

"""Writes a seeded sample of IMDB as OUTPUT/train.jsonl and test.jsonl, and the token counts of train's rows as lengths.txt.

    python gpu/sample.py TOKENIZER.json IMDB_DIR OUTPUT_DIR

IMDB_DIR has the parquet files of the data set, columns `text` and `label`. 2,500 and 500 rows are the notebook's sizes: 471
steps in three epochs of batches of 16. Counts are cut at 512 tokens. Needs the packages tokenizers and pyarrow.
"""

import argparse
import json
import pathlib
import random

SEED = 42
MAX_LENGTH = 512


def draw(folder, split, rows):
    """`rows` rows of the parquet files of a split, as dictionaries."""
    import pyarrow.parquet

    files = sorted(folder.glob(f"{split}*.parquet"))
    if not files:
        raise SystemExit(f"{folder} has no {split}*.parquet")
    table = [row for file in files for row in pyarrow.parquet.read_table(file, columns=["text", "label"]).to_pylist()]
    return random.Random(SEED).sample(table, min(rows, len(table)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a tokenizer.json")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--train", type=int, default=2500, help="rows for training")
    parser.add_argument("--test", type=int, default=500, help="rows for evaluation")
    arguments = parser.parse_args()
    try:
        import pyarrow.parquet  # noqa: F401
        import tokenizers
    except ImportError as error:
        raise SystemExit(f"{error}: install tokenizers and pyarrow")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split, rows in [("train", arguments.train), ("test", arguments.test)]:
        sample = draw(arguments.data, split, rows)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in sample)
        (arguments.output / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        if split == "train":
            tokenizer = tokenizers.Tokenizer.from_file(arguments.tokenizer)
            tokenizer.no_padding()
            tokenizer.enable_truncation(MAX_LENGTH)
            counts = [len(encoding.ids) for encoding in tokenizer.encode_batch([row["text"] for row in sample])]
            (arguments.output / "lengths.txt").write_text("".join(f"{count}\n" for count in counts))


if __name__ == "__main__":
    main()

"""Prints the number of tokens of each text of a seeded sample of a parquet file, one a line, cut at 512.

    python gpu/lengths.py TOKENIZER.json TRAIN.parquet > LENGTHS

Needs the packages tokenizers and pyarrow. 2,500 rows are the notebook's sample size.
"""

import argparse
import random


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a tokenizer.json")
    parser.add_argument("data", help="a parquet file with a column of texts")
    parser.add_argument("--column", default="text")
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    try:
        import pyarrow.parquet
        import tokenizers
    except ImportError as error:
        raise SystemExit(f"{error}: install tokenizers and pyarrow")
    tokenizer = tokenizers.Tokenizer.from_file(arguments.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(arguments.max_length)
    texts = pyarrow.parquet.read_table(arguments.data, columns=[arguments.column])[arguments.column].to_pylist()
    sample = random.Random(arguments.seed).sample(texts, min(arguments.rows, len(texts)))
    for encoding in tokenizer.encode_batch(sample):
        print(len(encoding.ids))


if __name__ == "__main__":
    main()

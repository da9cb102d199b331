"""What scikit-learn says of classes and figures: writes classes_and_metrics.json beside this file.

Run with scikit-learn; the version is stored in the file.
"""

import json
import pathlib
import random
import warnings

import sklearn
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.preprocessing import LabelEncoder

warnings.filterwarnings("ignore")

LABELS = [
    ["ham", "spam", "ham"],
    ["meh", "good", "bad", "meh"],
    ["4 stars", "1 star", "10 stars", "2 stars"],
    ["b", "B", "a", "A"],
    ["été", "zoo", "eta", "Ünï", "日本", "🎬"],
    ["True", "False", "True"],
    ["a b", "a-b", "a_b", "ab", "a"],
    [3, 1, 2, 10],
    [1, 2, 1],
    [0, 4, 4],
    [-1, 1, 0],
    [5, 4, 3, 2, 1],
]


def classes():
    return [
        {"labels": [str(label) for label in labels], "classes": [str(name) for name in LabelEncoder().fit(labels).classes_]}
        for labels in LABELS
    ]


def figures(random):
    cases = []
    for case in range(60):
        number = random.choice([2, 2, 3, 4, 5, 7])
        rows = random.choice([1, 2, 5, 20, 60])
        # Classes that do not occur, on one side or on both.
        true = random.sample(range(number), random.randint(1, number))
        guess = random.sample(range(number), random.randint(1, number))
        labels = [random.choice(true) for _ in range(rows)]
        predicted = [random.choice(guess + [label] * 2) if random.random() < 0.7 else label for label in labels]
        average = "binary" if number == 2 else "macro"
        over = None if average == "macro" else [0, 1]
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predicted, labels=over, average=average, pos_label=1, zero_division=0
        )
        each = precision_recall_fscore_support(labels, predicted, labels=list(range(number)), average=None, zero_division=0)
        cases.append(
            {
                "classes": number,
                "labels": labels,
                "predicted": predicted,
                "accuracy": accuracy_score(labels, predicted),
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "per_class": [[float(value) for value in figure] for figure in each[:3]],
                "support": [int(count) for count in each[3]],
            }
        )
    return cases


golden = {"sklearn": sklearn.__version__, "classes": classes(), "figures": figures(random.Random(42))}
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")

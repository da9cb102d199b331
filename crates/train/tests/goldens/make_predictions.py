"""Makes predictions.json beside this script: scikit-learn's area under the ROC curve, the expected calibration error by the
definition of Guo et al. 2017, and bootstrap intervals of F1, for random logits with ties.

    python make_predictions.py        (numpy, scikit-learn)
"""

import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn.metrics import f1_score, roc_auc_score

rng = np.random.default_rng(7)


def case(rows, names, sharpness):
    classes = len(names)
    labels = rng.integers(0, classes, rows)
    # Rounded, so that many rows are equal: ties in the ranks and in the confidences.
    logits = np.round(rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels], 1) * sharpness
    logits = logits.astype(np.float32)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    probabilities = (np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)).astype(np.float32)
    predicted = logits.argmax(axis=1)
    positive = names.index("positive") if classes == 2 else None
    if classes == 2:
        auroc = roc_auc_score(labels == positive, probabilities[:, positive])
    else:
        # The rows have to sum to 1 exactly enough for scikit-learn; the ranks are those of the f32 numbers.
        columns = [roc_auc_score(labels == c, probabilities[:, c]) for c in range(classes)]
        auroc = float(np.mean(columns))

    confidence = probabilities[np.arange(rows), predicted].astype(np.float64)
    edges = np.linspace(0, 1, 16)
    ece, counts = 0.0, []
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        counts.append(int(inside.sum()))
        if inside.any():
            correct = (predicted == labels)[inside].mean()
            ece += inside.mean() * abs(correct - confidence[inside].mean())

    average = dict(average="binary", pos_label=positive) if classes == 2 else dict(average="macro", zero_division=0)
    samples = [rng.integers(0, rows, rows) for _ in range(4000)]
    scores = [f1_score(labels[s], predicted[s], **average) for s in samples]
    return dict(
        names=names,
        labels=labels.tolist(),
        logits=[round(float(x), 6) for x in logits.flatten()],
        auroc=float(auroc),
        expected_calibration_error=float(ece),
        bin_rows=counts,
        f1=float(f1_score(labels, predicted, **average)),
        f1_interval=[float(q) for q in np.quantile(scores, [0.025, 0.975])],
    )


cases = [case(150, ["negative", "positive"], 1.0), case(120, ["positive", "negative"], 3.0), case(150, ["a", "b", "c", "d"], 1.0)]
path = Path(__file__).with_name("predictions.json")
path.write_text(json.dumps(dict(sklearn=sklearn.__version__, numpy=np.__version__, cases=cases)) + "\n")

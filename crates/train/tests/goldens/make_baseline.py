"""Goldens of the bag-of-words classifier: python make_baseline.py

Made with scikit-learn 1.9.1. Texts are drawn from the words below with a fixed seed. Each case has the vocabulary, the inverse
document frequencies, the decision values of all texts, and the coefficients of a fit with a tolerance far below the default.
"""

import json
import random
import warnings

import sklearn
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

WORDS = {
    "good": "wonderful, moving CLEVER Warm bright film_noir 10 naïve été ΟΔΟΣ not".split(),
    "bad": "dull, slow Awful 2/10 noisy DON'T हिन्दी пустой not boring".split(),
    "mixed": "uneven so-so but although 50% half İstanbul ǅungla not fine".split(),
    "any": "the The film a I it it's and plot plot. actor x² scene, of ² was 好电影 e\u0301te\u0301".split(),
}
LABELS = ["good", "bad", "mixed"]


def text(rng, label):
    length = rng.randint(3, 14)
    words = [rng.choice(WORDS[label if rng.random() < 0.45 else "any"]) for _ in range(length)]
    if rng.random() < 0.1:
        words.insert(0, rng.choice(WORDS[rng.choice(LABELS)]))
    return " ".join(words)


rng = random.Random(20261127)
labels = [rng.choices([0, 1, 2], [5, 3, 2])[0] for _ in range(90)]
texts = [text(rng, LABELS[label]) for label in labels]
held_out = [text(rng, rng.choice(LABELS)) for _ in range(20)] + ["", "unseen words only", "wonderful unseen film"]

cases = []
for classes, ngrams, min_df, max_features, sublinear, c in [
    (2, 1, 1, None, False, 1.0),
    (2, 2, 2, None, True, 10.0),
    (3, 1, 1, None, True, 1.0),
    (3, 2, 2, 40, False, 100.0),
    (3, 2, 1, None, True, 0.1),
]:
    rows = [i for i, label in enumerate(labels) if label < classes]
    vectorizer = TfidfVectorizer(
        ngram_range=(1, ngrams), min_df=min_df, max_features=max_features, sublinear_tf=sublinear
    )
    if max_features is not None:
        # scikit-learn chooses among equally frequent terms as its sort does: there must be no such choice to make.
        counts = TfidfVectorizer(ngram_range=(1, ngrams), min_df=min_df, use_idf=False, norm=None)
        sums = sorted(counts.fit_transform([texts[i] for i in rows]).sum(axis=0).A1, reverse=True)
        while sums[max_features - 1] == sums[max_features]:
            max_features += 1
        vectorizer.max_features = max_features
    x = vectorizer.fit_transform([texts[i] for i in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=1000)
        model.fit(x, [labels[i] for i in rows])
    decisions = model.decision_function(vectorizer.transform([texts[i] for i in rows] + held_out))
    cases.append(
        {
            "classes": classes,
            "ngrams": ngrams,
            "min_df": min_df,
            "max_features": max_features,
            "sublinear_tf": sublinear,
            "c": c,
            "terms": list(vectorizer.get_feature_names_out()),
            "idf": vectorizer.idf_.tolist(),
            "decisions": [round(value, 10) for value in decisions.ravel().tolist()],
            "coefficients": [[round(value, 10) for value in row] for row in model.coef_.tolist()],
        }
    )

golden = {"sklearn": sklearn.__version__, "labels": labels, "texts": texts, "held_out": held_out, "cases": cases}
with open("baseline.json", "w", encoding="utf-8") as file:
    json.dump(golden, file, ensure_ascii=False)
    file.write("\n")
for case in cases:
    print(len(case["terms"]), case["max_features"], max(map(abs, case["decisions"])))

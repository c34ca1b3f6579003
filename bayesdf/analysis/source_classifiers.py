"""Which classifier learns sources from features, and which images are judged by the same fit?

Folds are made of whole subjects. The candidates and the folds are the same for uncertainty features and for their
controls, so that a comparison is one of features, not of classifiers.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bayesdf.errors import BayesdfError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Array = NDArray[np.float64]

Integers = NDArray[np.int64]

INNER_FOLDS = 3

CHOICE_IMAGES = 1500
"""The choice among the candidates rests on about so many images, where there are at least twice as many."""


def candidates(features: int, seed: int = 0) -> dict[str, "Pipeline"]:
    """The classifiers among which inner cross-validation chooses, by name. The first wins ties.

    - `discriminant`: linear, one Ledoit-Wolf covariance for all sources. Good with many correlated features.
    - `logistic`: linear, without that assumption.
    - `kernel logistic`: Gaussian kernel by 200 Nyström landmarks. Its boundaries are smooth curves.

    All take standardised features. Each is fitted in hundredths of a second.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "discriminant": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
        "kernel logistic": make_pipeline(
            StandardScaler(),
            Nystroem(gamma=0.15 / features, n_components=200, random_state=seed),
            LogisticRegression(C=10.0, max_iter=500),
        ),
    }


def choose_classifier(values: Array, code: Integers, group: Integers, seed: int) -> str:
    """The candidate with the best accuracy on subjects left out in turn. With a single subject it is the first.

    Many images are cut to `CHOICE_IMAGES` or a little more, by whole groups. The candidate is then fitted on all.
    """
    options = candidates(values.shape[1], seed)
    first = next(iter(options))
    if len(np.unique(group)) < 2:
        return first
    if len(code) >= 2 * CHOICE_IMAGES:
        some = _some_groups(group, seed)
        values, code, group = values[some], code[some], group[some]
    fold = fold_numbers(code, group, INNER_FOLDS, seed)
    right = dict.fromkeys(options, 0)
    for number in range(fold.max() + 1):
        test = fold == number
        if len(np.unique(code[~test])) < 2:
            continue
        for name, classifier in options.items():
            probability = fit_predict(classifier, values[~test], code[~test], values[test], code.max() + 1)
            right[name] += int((probability.argmax(axis=1) == code[test]).sum())
    return max(right, key=right.__getitem__)


def _some_groups(group: Integers, seed: int) -> NDArray[np.bool_]:
    """Whole groups at random, two or more, until there are `CHOICE_IMAGES` images: bool (image,)."""
    names, size = np.unique(group, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    enough = max(2, 1 + int(np.searchsorted(np.cumsum(size[order]), CHOICE_IMAGES)))
    return np.isin(group, names[order[:enough]])


# Matrices this small are slower on many threads than on one, by a factor of thirty where cores are busy.
@threadpool_limits.wrap(limits=1)
def fit_predict(classifier: "Pipeline", fit: Array, code: Integers, test: Array, sources: int) -> Array:
    """Probabilities (test image, source) of a copy of the classifier, fitted on `fit` with the sources `code`."""
    from sklearn.base import clone

    model = clone(classifier)
    if "nystroem" in model.named_steps:
        model.set_params(nystroem__n_components=min(200, len(fit)))
    with warnings.catch_warnings():
        # Whoever reads a result need not hear of constant features and of unconverged fits of a losing candidate.
        warnings.simplefilter("ignore")
        model.fit(fit, code)
        found = model.predict_proba(test)
    probability = np.zeros((len(test), sources))
    probability[:, model.classes_] = found
    return probability


def fold_numbers(code: Integers, group: Integers, folds: int, seed: int) -> Integers:
    """Fold of each image. Groups stay whole, and sources are spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, len(np.unique(group)), int(np.bincount(code).max()))
    if folds < 2:
        raise BayesdfError(f"folds={folds}: judging unseen subjects takes two folds and two subjects or more")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.full(len(code), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a source with fewer images than folds is judged all the same
        for number, (_, test) in enumerate(splitter.split(code[:, None], code, group)):
            fold[test] = number
    return np.unique(fold, return_inverse=True)[1].astype(np.int64)

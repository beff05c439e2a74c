"""Two simple classifiers that pick the supporting context: a linear one and shallow boosted trees.

Both score every context of a pair and pick the best; ties share the credit. So the order in which contexts are given
cannot matter, and guessing is right with probability 1/N exactly. Where both directions of a couple show the same
contexts, a score of the contexts alone is right in exactly one of the two.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

_LEAST_TRAINING_PAIRS = 15


class Features(NamedTuple):
    """One group's numbers for all pairs, contexts laid one after the other.

    ``columns`` [contexts, d]; ``crossed`` [contexts, e], to be multiplied with ``of_pair`` [pairs, k]; d or e may be 0.
    ``wide``: hashed columns, no ranks, linear only.
    """

    columns: np.ndarray
    crossed: np.ndarray
    of_pair: np.ndarray
    wide: bool = False


class Layout:
    """Which contexts belong to which pair; the first of a pair supports. ``sizes``: [pairs] how many each has."""

    def __init__(self, sizes: np.ndarray) -> None:
        self.sizes = np.asarray(sizes, int)
        self.owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self.start = np.cumsum(self.sizes) - self.sizes
        self.supports = np.isin(np.arange(len(self.owner)), self.start)

    def ranks(self, columns: np.ndarray) -> np.ndarray:
        """[contexts, d] rank of each value within its pair, -1 to 1; ties in the middle."""
        ranks = pd.DataFrame(columns).groupby(self.owner).rank().to_numpy()
        return (2 * (ranks - 1) / np.maximum(self.sizes - 1, 1)[self.owner, None] - 1).astype(np.float32)

    def centred(self, columns: np.ndarray) -> np.ndarray:
        """[contexts, d] each value less the mean of its pair."""
        return columns - (np.add.reduceat(columns, self.start) / self.sizes[:, None])[self.owner]

    def credit(self, scores: np.ndarray) -> np.ndarray:
        """[pairs] 1 if the supporting context has the highest score, 0 if not, 1/ties if it shares it."""
        best = np.maximum.reduceat(scores, self.start)
        top = scores >= (best - 1e-9 * np.maximum(1, np.abs(best)))[self.owner]
        return np.where(top[self.start], 1 / np.add.reduceat(top.astype(float), self.start), 0.0)


def _standard(columns: np.ndarray) -> np.ndarray:
    scale = columns.std(0)
    return ((columns - columns.mean(0)) / np.where(scale > 1e-9, scale, 1)).astype(np.float32)


def _linear_design(features: Features, layout: Layout) -> np.ndarray:
    """[contexts, columns] what the linear model weighs: columns, their ranks, products with the pair's numbers."""
    columns, crossed, of_pair = (numbers.astype(np.float32) for numbers in features[:3])
    own = [columns] if features.wide else [_standard(columns), layout.ranks(columns)]
    crossed = np.concatenate([layout.centred(_standard(crossed)), layout.ranks(crossed)], 1)
    products = np.einsum("ce,ck->cek", crossed, _standard(of_pair)[layout.owner])
    return np.concatenate([*own, products.reshape(len(crossed), crossed.shape[1] * of_pair.shape[1])], 1)


def _linear_scores(design: np.ndarray, layout: Layout, train: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scores of a logistic regression (L2, no intercept) on differences supporting - confounding, signs at random."""
    rows = np.flatnonzero(train & ~layout.supports)
    owners = layout.owner[rows]
    differences = design[layout.start[owners]] - design[rows]
    scale = np.sqrt(np.mean(np.square(differences, dtype=np.float64), 0))
    scale = np.where(scale > 1e-9, scale, np.inf).astype(np.float32)
    # Hashed columns are rare and many: scaled by their own size they would all weigh as much as the common ones.
    scale = np.maximum(scale, np.median(scale[np.isfinite(scale)]) if np.isfinite(scale).any() else 1)
    signs = rng.permutation(np.arange(len(rows)) % 2)
    flipped = differences / scale * (2 * signs[:, None] - 1).astype(np.float32)
    # Inverse strength of L2: columns are of unit size, so the prior of a score is of unit size too.
    model = LogisticRegression(C=min(1.0, 3.0 / design.shape[1]), fit_intercept=False, max_iter=200, tol=1e-3)
    model.fit(flipped, signs, sample_weight=1 / (layout.sizes[owners] - 1))
    return design @ (model.coef_[0] / scale)


def _tree_design(features: Features, layout: Layout) -> np.ndarray:
    """[contexts, columns] what the trees split on: columns, the same less the pair's mean, and ranks."""
    columns = features.columns.astype(np.float32)
    return np.concatenate([columns, layout.centred(columns), layout.ranks(columns)], 1)


def _tree_scores(design: np.ndarray, layout: Layout, train: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scores of shallow boosted trees: the probability that a context by itself supports its pair."""
    model = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=6, min_samples_leaf=10, max_bins=63, l2_regularization=1.0, early_stopping=False,
        random_state=int(rng.integers(2**31)),
    )  # fmt: skip
    return model.fit(design[train], layout.supports[train]).predict_proba(design)[:, 1]


# What a model is given, and (that, layout, [contexts] bool of training, rng) -> [contexts] scores.
MODELS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "linear": (_linear_design, _linear_scores),
    "trees": (_tree_design, _tree_scores),
}


def models_for(features: Features, layout: Layout) -> list[str]:
    """Names of the models that take these features; none where all contexts of every pair have the same numbers.

    Trees grow one split at a time and a product shows no gain in either factor alone, so crossed columns are left to
    the linear model, which is given the products.
    """
    if all((columns == columns[layout.start][layout.owner]).all() for columns in features[:2]):
        return []
    return ["linear"] if features.wide or features.crossed.size else list(MODELS)


def cross_validated(
    model: str, features: Features, layout: Layout, splits: list[tuple[np.ndarray, np.ndarray]], seed: int
) -> np.ndarray:
    """[pairs] credit of each pair when its fold was held out, mean over repeats; NaN where no fold could be trained."""
    build, scores = MODELS[model]
    design = build(features, layout)
    credits = np.full((len(splits), len(layout.sizes)), np.nan)
    rng = np.random.default_rng(seed)
    with threadpool_limits(1), warnings.catch_warnings():
        # Too few steps of the solver, and pairs that no fold could hold out.
        warnings.simplefilter("ignore")
        for row, (train, test) in zip(credits, splits, strict=True):
            if train.sum() >= _LEAST_TRAINING_PAIRS:
                row[test] = layout.credit(scores(design, layout, train[layout.owner], rng))[test]
        return np.nanmean(credits, 0)

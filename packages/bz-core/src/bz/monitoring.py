"""What the name of a measured value says about which way is better."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_LOWER_IS_BETTER: Final = {
    "loss", "error", "err", "mae", "mse", "rmse", "mape", "smape", "perplexity", "wer", "cer", "mer", "ter", "fid",
    "nll", "brier", "divergence", "distance", "hinge", "entropy",
}  # fmt: skip
_HIGHER_IS_BETTER: Final = {
    "accuracy", "acc", "auc", "auroc", "roc", "ap", "map", "precision", "recall", "sensitivity", "specificity",
    "f1", "fbeta", "dice", "iou", "jaccard", "kappa", "mcc", "corrcoef", "correlation", "pearson", "spearman", "r2",
    "bleu", "rouge", "meteor", "psnr", "ssim", "ndcg", "mrr", "score", "similarity", "reward",
}  # fmt: skip
_WORD: Final = re.compile(r"[A-Z]+[0-9]*(?![a-z])|[A-Z]?[a-z]+[0-9]*|[0-9]+")


class Directions(NamedTuple):
    """Which ways of being better the words of a name speak of: none, one, or both.

    Attributes:
        lower: Whether there is a word such as `loss` or `error`.
        higher: Whether there is a word such as `accuracy` or `score`.
    """

    lower: bool
    higher: bool


def named_directions(name: str) -> Directions:
    """Return what the words of a name say, whether it is written `word_error_rate` or `MeanSquaredError`."""
    words = {word.lower() for word in _WORD.findall(name)}
    return Directions(lower=bool(words & _LOWER_IS_BETTER), higher=bool(words & _HIGHER_IS_BETTER))

"""Plain functions from arrays to figures, each with its count and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3face.data.filtering import laplacian_energy as laplacian_energy
from m3face.faces import CLASSES, GROUPS, ID, LabelMap, Landmarks

_Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class Rate:
    """`hits` of `count`, with the 95 % Wilson interval."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        if not self.count:
            return math.nan, math.nan
        n, p = self.count, self.value
        centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return max(0.0, centre - half), min(1.0, centre + half)


def rate(hits: Sequence[bool]) -> Rate:
    """The rate of true among `hits`."""
    return Rate(hits=sum(bool(h) for h in hits), count=len(hits))


def mean_iou(predicted: Sequence[LabelMap], true: Sequence[LabelMap]) -> tuple[float, dict[str, float]]:
    """(mean over the classes present, by class) of intersection over union, summed over all maps."""
    confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    for p, t in zip(predicted, true, strict=True):
        pairs = p.astype(np.int64).ravel() * len(CLASSES) + t.astype(np.int64).ravel()
        confusion += np.bincount(pairs, minlength=len(CLASSES) ** 2).reshape(confusion.shape)
    both = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - both
    by_class = {name: float(both[i] / union[i]) for i, name in enumerate(CLASSES) if confusion[:, i].sum()}
    return float(np.mean(list(by_class.values()))), by_class


def landmark_error(predicted: Landmarks, true: Landmarks) -> float:
    """Mean distance of the points over the distance of the outer eye corners (the usual 300-W normalisation)."""
    between = float(np.linalg.norm(true[36] - true[45]))
    return float(np.linalg.norm(predicted - true, axis=1).mean()) / max(between, 1e-6)


def points_on_map(points: Landmarks, label_map: LabelMap, *, reach: float = 0.03) -> bool:
    """Whether the landmarks sit on the map's parts: the centre of each eye, the nose and the mouth lies on the part of
    that name, or within `reach` of the picture's side of it; parts that the map lacks (behind glasses) are passed over.
    """
    size = label_map.shape[0]
    for group, names in (
        ("r_eye", ("r_eye",)),
        ("l_eye", ("l_eye",)),
        ("nose_base", ("nose",)),
        ("outer_lips", ("u_lip", "l_lip", "mouth")),
    ):
        rows, columns = np.nonzero(np.isin(label_map, [ID[name] for name in names]))
        if not rows.size:
            continue
        x, y = points[GROUPS[group].start : GROUPS[group].stop].mean(0)
        nearest = np.sqrt(((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2).min())
        if nearest > reach * size:
            return False
    return True


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Cosine of two vectors."""
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def kernel_distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Squared maximum mean discrepancy of two sets of features [n, d] under KID's kernel (x y / d + 1)^3.

    With the diagonal (the biased estimate), so that two sets of one distribution are a little apart and never below
    zero: their distance is what another distance is measured against, at the same n.
    """

    def kernel(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        return float(((a.astype(np.float64) @ b.T.astype(np.float64) / a.shape[1] + 1) ** 3).mean())

    return kernel(one, one) + kernel(other, other) - 2 * kernel(one, other)

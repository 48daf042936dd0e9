"""The orders in which published label maps number their classes, and whether a map can be in the order it claims.

Odd here: numbers alone look alike in every order, but a face does not. Brows lie above eyes, the nose above the lips
and within a larger skin, the person's left eye is on the picture's right. A map that breaks such facts in its own order
and none of them in another one is in that other order, or in a mixed archive. A face that lies on its side breaks them
in all orders, and then nothing is said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m3face.errors import BadInput, ConfigError
from m3face.faces import CLASSES, ID, RAW_FOLDER_ORDER, LabelMap

LABEL_ORDERS: dict[str, tuple[str, ...]] = {
    "merged": CLASSES,
    "raw": ("background", *RAW_FOLDER_ORDER),
    "face-parsing": (
        "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose",
        "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
    ),
}  # fmt: skip
"""Class names by number: the maps of `g_mask.py`, the annotation folder's own list, and face-parsing.PyTorch."""

FIELD = "data.source.label_order"

_ABOVE = (
    ("l_brow", "l_eye"), ("r_brow", "r_eye"), ("l_eye", "nose"), ("r_eye", "nose"), ("nose", "u_lip"),
    ("u_lip", "l_lip"), ("nose", "neck"), ("l_lip", "neck"), ("skin", "neck"), ("skin", "cloth"), ("hair", "l_lip"),
)  # fmt: skip
_RIGHT_OF = (("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear"))
_SMALLER = (("nose", "skin"), ("l_eye", "skin"), ("r_brow", "skin"), ("u_lip", "skin"), ("l_brow", "skin"))
_BROKEN = 2  # one fact may break in a turned head
_ENOUGH = 10  # facts; fewer may hold by chance


def unnamed_order(field: str = FIELD) -> ConfigError:
    """What is said where maps hold numbers and nobody said in which order."""
    return ConfigError(
        field,
        "is not named, and the label maps hold numbers",
        ", ".join(LABEL_ORDERS),
        "merged is the order of CelebAMask-HQ's g_mask.py, raw that of its annotation folder, "
        "face-parsing that of face-parsing.PyTorch",
    )


def to_ids(values: NDArray[np.uint8], order: str, *, field: str) -> LabelMap:
    """Numbers in `order` as ids of `CLASSES`. Raises BadInput where they are plainly in another order."""
    other = likelier_order(values, order)
    if other is not None:
        raise BadInput(
            field,
            f"is no face in the label order {order} and one in the order {other}",
            "one order in the whole archive",
            f"set {FIELD} to {other}, or sort the two kinds of maps apart",
        )
    return _table(order)[values]


def _table(order: str) -> NDArray[np.uint8]:
    return np.array([ID[name] for name in LABEL_ORDERS[order]], dtype=np.uint8)


def likelier_order(values: NDArray[np.uint8], order: str) -> str | None:
    """The order in which a map makes a face where in `order` it makes none; None where `order` may be right."""
    step = max(1, max(values.shape) // 128)
    values = values[::step, ::step]
    height, width = values.shape
    area = np.bincount(values.ravel(), minlength=len(CLASSES)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        y = np.bincount(values.ravel(), np.repeat(np.arange(height), width), len(CLASSES)) / area
        x = np.bincount(values.ravel(), np.tile(np.arange(width), height), len(CLASSES)) / area
    kept, broken = _facts(area, x, y, order)
    if broken < _BROKEN:
        return None
    for other in LABEL_ORDERS:
        more, none = _facts(area, x, y, other)
        if none == 0 and more >= max(_ENOUGH, kept + 1):
            return other
    return None


def _facts(area: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], order: str) -> tuple[int, int]:
    """How many facts of a face hold and how many are broken, among those whose classes are there."""
    number = {name: place for place, name in enumerate(LABEL_ORDERS[order])}
    held: list[bool] = []
    for facts, of, sign in ((_ABOVE, y, 1), (_RIGHT_OF, x, -1), (_SMALLER, area, 1)):
        for one, two in facts:
            a, b = number[one], number[two]
            if area[a] and area[b]:
                held.append(bool(sign * of[a] < sign * of[b]))
    return sum(held), len(held) - sum(held)

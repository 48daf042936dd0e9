"""What a label map or pixels show by plain rules, without a network: a check on what networks say and write.

Odd here: a rule speaks only where it is sure. On true renders all of them are right (a test), so a mistake found on a
made map is the map's, and one found on a judge's answer is the judge's.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from m3face.faces import ATTRIBUTES, ID, LabelMap, Mention

SIGNS = ("glasses", "hat", "earrings", "bald", "long hair")

_LEAST = {"eye_g": 0.005, "hat": 0.01, "ear_r": 0.0003, "hair": 0.0015}  # share of the picture that counts as there
_LONG = 0.09  # long hair hangs this share of the side below the face
_LEAST_HAIR = 150  # pixels of hair that have a colour


def map_signs(label_map: LabelMap) -> dict[str, bool]:
    """Each of `SIGNS`, as the map [S, S] shows it."""
    share = {name: float((label_map == ID[name]).mean()) for name in _LEAST}
    rows = {name: np.nonzero((label_map == ID[name]).any(axis=1))[0] for name in ("hair", "skin")}
    hangs = int(rows["hair"].max()) - int(rows["skin"].max()) if all(r.size for r in rows.values()) else 0
    return {
        "glasses": share["eye_g"] > _LEAST["eye_g"],
        "hat": share["hat"] > _LEAST["hat"],
        "earrings": share["ear_r"] > _LEAST["ear_r"],
        "bald": share["hair"] < _LEAST["hair"],
        "long hair": hangs > _LONG * len(label_map),
    }


def asked_signs(mentions: Iterable[Mention]) -> dict[str, bool]:
    """The signs that words ask for (True) or rule out (False); what they leave open is left out."""
    said = set(mentions)
    signs: dict[str, bool] = {}
    for sign in ("glasses", "hat", "earrings"):
        present = ATTRIBUTES[sign].present
        if any(Mention(sign, value) in said for value in present):
            signs[sign] = True
        elif all(Mention(sign, value, negated=True) in said for value in present):
            signs[sign] = False
    for sign, value in (("bald", "bald"), ("long hair", "long")):
        asked = [m.value for m in said if m.attribute == "hair_length" and not m.negated]
        if asked:
            signs[sign] = value in asked
        elif Mention("hair_length", value, negated=True) in said:
            signs[sign] = False
    return signs


def unasked(label_map: LabelMap, mentions: Iterable[Mention]) -> list[str]:
    """The signs that a map [S, S] does not show as words ask."""
    shown = map_signs(label_map)
    return [sign for sign, wanted in asked_signs(mentions).items() if shown[sign] != wanted]


def hair_colour(picture: NDArray[np.uint8], label_map: LabelMap) -> str | None:
    """The value of `hair_colour` by the median pixel under the hair label; None where there is too little hair."""
    hair = picture[label_map == ID["hair"]]
    if len(hair) < _LEAST_HAIR:
        return None
    red, green, blue = (float(v) / 255 for v in np.median(hair, axis=0))
    brightness = max(red, green, blue)
    saturation = (brightness - min(red, green, blue)) / max(brightness, 1e-6)
    if brightness < 0.15:
        return "black"
    if saturation < 0.25:
        return "gray" if brightness < 0.57 else "white"
    if saturation > 0.72:
        return "red"
    return "blond" if green - blue > 0.5 * (red - blue) else "brown"

"""Is a label map a face? Two eyes, one nose, one mouth, each in one piece and in order.

Odd here: a turned head may hide an eye and dark glasses hide both, so an eye may be missing only where glasses stand or
where the nose has moved to that side of the face. The same rules judge true renders, and that rate stands beside every
figure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m3face.faces import ID, LabelMap

_WHOLE = 0.9  # share of a part's pixels that its largest piece must hold
_SMALLEST = 2e-4  # share of the picture below which a part counts as missing


def largest_piece(mask: NDArray[np.bool_]) -> int:
    """Pixels in the largest 8-connected piece of a mask."""
    left = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    best = 0
    while left:
        frontier = [left.pop()]
        size = 0
        while frontier:
            row, column = frontier.pop()
            size += 1
            for near in [(row + dr, column + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    frontier.append(near)
        best = max(best, size)
    return best


def _part(label_map: LabelMap, *names: str) -> NDArray[np.bool_]:
    return np.isin(label_map, [ID[name] for name in names])


def _centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())


def anatomy_faults(label_map: LabelMap) -> list[str]:
    """What is wrong with a map's anatomy, in words; empty if nothing. `label_map` is uint8 [S, S]."""
    smallest = _SMALLEST * label_map.size
    parts = {
        "skin": _part(label_map, "skin"),
        "nose": _part(label_map, "nose"),
        "mouth": _part(label_map, "u_lip", "l_lip", "mouth"),
        "l_eye": _part(label_map, "l_eye"),
        "r_eye": _part(label_map, "r_eye"),
    }
    glasses = _part(label_map, "eye_g").sum() > 20 * smallest
    faults = [f"no {name}" for name in ("skin", "nose", "mouth") if parts[name].sum() < smallest]
    if faults:
        return faults
    for name in ("nose", "mouth", "l_eye", "r_eye"):
        total = int(parts[name].sum())
        if total >= smallest and largest_piece(parts[name]) < _WHOLE * total:
            faults.append(f"{name} in pieces")
    nose_row, nose_column = _centre(parts["nose"])
    mouth_row, _ = _centre(parts["mouth"])
    if mouth_row <= nose_row:
        faults.append("mouth above nose")
    face_column = _centre(_part(label_map, "skin", "nose", "mouth", "u_lip", "l_lip"))[1]
    centres = {}
    for name, side in (("l_eye", 1.0), ("r_eye", -1.0)):
        if parts[name].sum() >= smallest:
            centres[name] = _centre(parts[name])
            if centres[name][0] >= nose_row:
                faults.append(f"{name} below nose")
        elif not glasses and (nose_column - face_column) * side < 0.02 * label_map.shape[1]:
            faults.append(f"no {name}")
    if len(centres) == 2 and centres["l_eye"][1] <= centres["r_eye"][1]:
        faults.append("eyes swapped")
    lips = [_part(label_map, name) for name in ("u_lip", "l_lip")]
    if all(lip.any() for lip in lips) and _centre(lips[0])[0] >= _centre(lips[1])[0]:
        faults.append("lips swapped")
    return faults

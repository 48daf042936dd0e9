"""From the drawing of a face's landmarks back to 68 points: what `draw_landmarks` does, undone.

Odd here: a network that was taught drawings gives a drawing, with noisy edges and no numbers in it. Colour says which
part a pixel belongs to; along a part the points are taken at equal lengths, which is where a detector puts most of
them but not what the drawing says. So a traced face is drawn again much as it was, while a point may have slid along
its line. No component is labelled and no contour followed: parts are told apart by where they lie in the face's frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m3face.errors import BadInput
from m3face.faces.landmarks import COUNT, DRAWING, GROUPS, Landmarks

_COLOURS = np.array([(0, 0, 0), *dict.fromkeys(colour for _, colour, _ in DRAWING)], dtype=np.int32)
_FEWEST = 6  # pixels of a part: fewer are noise
_FARTHEST = 110.0  # in RGB from a part's colour: where two parts touch, the mixture is often a third one's neighbour

Points = NDArray[np.float64]


def trace_landmarks(drawing: NDArray[np.uint8], *, size: int) -> Landmarks:
    """The points [68, 2] in pixels of `size` behind an RGB drawing uint8 [S, S, 3].

    Raises BadInput naming the part of the face that the drawing lacks.
    """
    side = len(drawing)
    bright = drawing.max(-1) >= 128
    shades = drawing[bright].astype(np.float64)
    shades *= 255 / shades.max(-1, keepdims=True)  # an edge is a darker shade of its line, not another colour
    distance = np.sqrt(((shades[:, None] - _COLOURS) ** 2).sum(-1))
    nearest = np.zeros(bright.shape, np.intp)
    nearest[bright] = np.where(distance.min(-1) > _FARTHEST, 0, distance.argmin(-1))
    colour = {group: int((_COLOURS == np.array(rgb)).all(1).argmax()) for group, rgb, _ in DRAWING}

    def seen(*groups: str) -> Points:
        rows, columns = np.nonzero(np.isin(nearest, [colour[group] for group in groups]))
        return np.stack([columns + 0.5, rows + 0.5], axis=1)

    def pixels(*groups: str) -> Points:
        return _enough(seen(*groups), groups[0])

    eyes, nose = pixels("l_eye"), pixels("nose_bridge")
    tilt = _tilt(eyes)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    eyes, nose = eyes @ turn, nose @ turn  # now the eyes are level: x to the picture's right, y down
    middle = _between(eyes[:, 0])
    line = max(1, round(4 * side / 512))
    parts: dict[str, Points] = {
        "jaw": _bow(pixels("jaw") @ turn, about=np.array([middle, eyes[:, 1].mean()]), count=17)
    }
    brows = pixels("l_brow") @ turn
    above = brows[:, 1] < eyes[:, 1].mean()  # the same yellow shines up where nose and lips touch
    brows = _enough(brows[above], "l_brow")
    gap = _between(brows[:, 0], otherwise=middle)
    for name, eye, left in (("r_brow", "r_eye", True), ("l_brow", "l_eye", False)):
        mine = (brows[:, 0] < gap) == left
        parts[name] = _line(_enough(brows[mine], name), count=5)
        mine = (eyes[:, 0] < middle) == left
        parts[eye] = _ring(_enough(eyes[mine], eye), across=2)
    parts["nose_bridge"], parts["nose_base"] = _nose(nose, line=line)
    parts["outer_lips"] = _ring(pixels("outer_lips", "inner_lips") @ turn, across=5)
    inner = seen("inner_lips") @ turn
    parts["inner_lips"] = _ring(inner, across=3) if len(inner) >= _FEWEST else _shut(parts)
    points = np.empty((COUNT, 2))
    for name, found in parts.items():
        points[GROUPS[name].start : GROUPS[name].stop] = found
    return (points @ turn.T * (size / side)).astype(np.float32)


def _enough(pixels: Points, name: str) -> Points:
    if len(pixels) < _FEWEST:
        raise BadInput("landmarks", f"the drawing has no {name}", "a drawing of a whole face", "another seed")
    return pixels


def _between(values: NDArray[np.float64], *, otherwise: float | None = None) -> float:
    """The middle of the widest gap of `values`, as between two eyes; `otherwise` where there is no gap."""
    ordered = np.sort(values)
    gap = int(np.diff(ordered).argmax())
    if otherwise is not None and ordered[gap + 1] - ordered[gap] < 2:
        return otherwise
    return float(ordered[gap] + ordered[gap + 1]) / 2


def _tilt(eyes: Points) -> float:
    """The angle of the line through both eyes, in radians."""
    left = eyes[:, 0] < _between(eyes[:, 0])
    across = _enough(eyes[~left], "l_eye").mean(0) - _enough(eyes[left], "r_eye").mean(0)
    return float(np.arctan2(across[1], across[0]))


def _along(positions: NDArray[np.float64], pixels: Points, *, bins: int) -> Points:
    """The line through the mean pixels of equal steps of `positions`; its ends are those of the pixels."""
    low, high = positions.min(), positions.max()
    step = np.clip(((positions - low) / max(high - low, 1e-9) * bins).astype(int), 0, bins - 1)
    used = np.unique(step)
    line = np.stack([pixels[step == s].mean(0) for s in used])
    if len(used) > 2:  # a mean lies half a step inside: lengthen both ends to where the pixels end
        line[0] += (line[0] - line[1]) / 2
        line[-1] += (line[-1] - line[-2]) / 2
    return line


def _spread(line: Points, count: int) -> Points:
    """`count` points at equal lengths along `line`."""
    length = np.concatenate([[0.0], np.hypot(*np.diff(line, axis=0).T).cumsum()])
    wanted = np.linspace(0, length[-1], count)
    return np.stack([np.interp(wanted, length, line[:, axis]) for axis in (0, 1)], axis=1)


def _bow(pixels: Points, *, about: Points, count: int) -> Points:
    """A line around a point, open above: from the picture's left over the bottom to its right."""
    away = pixels - about
    angle = np.arctan2(-away[:, 0], away[:, 1])  # 0 straight down, positive to the picture's left
    return _spread(_along(-angle, pixels, bins=40), count)


def _line(pixels: Points, *, count: int) -> Points:
    """A line that runs from left to right."""
    return _spread(_along(pixels[:, 0], pixels, bins=12), count)


def _ring(pixels: Points, *, across: int) -> Points:
    """A filled shape as its left corner, `across` points above, its right corner and as many below, right to left."""
    x, y = pixels.T
    left, right = x.min() - 0.5, x.max() + 0.5
    near = max(1.0, (right - left) / 12)
    corners = [np.array([edge, y[np.abs(x - edge) <= near].mean()]) for edge in (left, right)]
    fractions = np.arange(1, across + 1) / (across + 1)
    above, below = [], []
    for at in left + fractions * (right - left):
        column = y[np.abs(x - at) <= 1.0]
        if column.size == 0:
            column = y[[np.abs(x - at).argmin()]]
        above.append((at, column.min() - 0.5))
        below.append((at, column.max() + 0.5))
    return np.array([corners[0], *above, corners[1], *below[::-1]])


def _shut(parts: dict[str, Points]) -> Points:
    """The inner lips [8, 2] of a closed mouth, whose drawing has no area: half-way between the outer ones."""
    outer = parts["outer_lips"]
    line = _spread((outer[:7] + np.concatenate([outer[:1], outer[:5:-1]])) / 2, 7)[1:6]
    return np.concatenate([line, line[3:0:-1]])


def _nose(pixels: Points, *, line: int) -> tuple[Points, Points]:
    """Bridge [4, 2] from the top down and base [5, 2] from the picture's left: one colour, told apart by the bridge's
    own direction. `line` is the width of the pen."""
    x, y = pixels.T
    upper = y <= (y.min() + y.max()) / 2
    slope, start = np.polyfit(y[upper], x[upper], 1) if np.ptp(y[upper]) > line else (0.0, float(x[upper].mean()))
    off = np.abs(x - (start + slope * y))
    far = (off > 1.5 * line + 1) & ~upper
    _enough(pixels[far], "nose_base")
    height = y[far][np.argsort(off[far])[: max(_FEWEST, int(far.sum()) // 4)]].mean()
    bridge = upper | (~far & (y < height - line))
    return _spread(_along(y[bridge], pixels[bridge], bins=10), 4), _line(pixels[~bridge], count=5)

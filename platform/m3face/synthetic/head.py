"""The head as one relief over the chart: skull, jaw, nose, lids, lips, then hair, hat and beard raised on it.

Odd here: hair is not pasted on; it is a swelling of the same surface, so it casts and catches shade and
hides what is behind it. `hair_line` gives, in chart units, how far inside the hair a chart point is;
strands fray that line later.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from m3face.synthetic.chart import STEP, Floats, add_bump, add_bumps, grid, lines, smooth, to_direction
from m3face.synthetic.features import Features
from m3face.synthetic.people import Look, Person

# the outline of the head seen from the front: its radius at angles from straight down (-90) to the top (90)
_ANGLES = (-90, -72, -57, -42, -24, 0, 25, 50, 72, 90)
_OUTLINES = {
    "oval": (0.95, 0.91, 0.84, 0.745, 0.695, 0.675, 0.735, 0.86, 0.95, 0.98),
    "round": (0.87, 0.875, 0.865, 0.815, 0.745, 0.70, 0.745, 0.85, 0.93, 0.95),
    "square": (0.92, 0.945, 0.935, 0.835, 0.735, 0.69, 0.745, 0.865, 0.945, 0.97),
    "heart": (0.97, 0.865, 0.75, 0.69, 0.68, 0.69, 0.785, 0.895, 0.95, 0.97),
    "long": (1.06, 1.0, 0.875, 0.735, 0.66, 0.63, 0.70, 0.87, 1.0, 1.04),
}
_DEGREES = np.linspace(-90.0, 90.0, 181, dtype=np.float32)


@lru_cache(maxsize=1)
def _upness() -> tuple[Floats, Floats]:
    """For each grid direction: its angle above the horizon in the frontal plane (degrees), and length there."""
    _, _, x, y, z = grid()
    return np.degrees(np.arctan2(y, np.abs(x) + 1e-6)).astype(np.float32), np.sqrt(np.maximum(1.0 - z * z, 1e-8))


@lru_cache(maxsize=1)
def _around() -> tuple[Floats, Floats]:
    """For each grid cell: its distance from the middle of the face, and its angle from the top (degrees)."""
    s, t, *_ = grid()
    return np.hypot(s, t), np.degrees(np.arctan2(np.abs(s), t))


@lru_cache(maxsize=1)
def _bulge() -> tuple[Floats, Floats]:
    """For each grid cell, of the skull's superellipse: its power, and the term that depth adds to the sum."""
    _, _, _, y, z = grid()
    depth = np.where(z > 0, np.float32(0.80), np.float32(0.90))
    power = 2.25 + 0.75 * smooth(0.15, -0.75, y)
    power -= 0.75 * smooth(-0.75, -1.0, y) * smooth(0.3, -0.2, z)
    return power, np.power(np.abs(z) / depth + 1e-6, power)


@dataclass(frozen=True, kw_only=True)
class Hair:
    """The border and volume of hair on the head; `border` is the chart radius at 0..180 degrees from the top."""

    border: Floats
    thick: float
    bangs: float
    present: bool

    def line(self, s: Floats, t: Floats) -> Floats:
        """How far inside the hair a chart point is (negative: outside), without strands."""
        if not self.present:
            return np.full_like(s, -1.0)
        turn = np.degrees(np.arctan2(np.abs(s), t))
        return np.hypot(s, t) - np.interp(turn, np.arange(181), self.border).astype(np.float32)

    def grid_line(self) -> Floats:
        """The same at every cell of the grid."""
        far, turn = _around()
        return far - np.interp(turn, np.arange(181), self.border).astype(np.float32)


def hair_of(person: Person, look: Look) -> Hair:
    """The hair cap of `person` as worn in `look`."""
    length, line = look.traits["hair_length"], person.traits["hairline"]
    high = 0.03 if person.traits["gender"] == "male" else 0.0
    turns = [0, 12, 24, 36, 48, 60, 74, 86, 98, 110, 130, 180]
    base = np.array([0.79, 0.80, 0.83, 0.88, 0.94, 1.02, 1.14, 1.30, 1.60, 1.72, 1.80, 1.9]) + high
    if line == "widows_peak":
        base[:5] += [-0.13, 0.015, 0.07, 0.07, 0.02]
    elif line == "receding":
        base[:6] += [0.10, 0.20, 0.30, 0.27, 0.15, 0.05]
    bangs = 0.0
    if look.has("bangs"):
        bangs = 0.36 + 0.04 * look.shape["fringe"]
        base[:6] = [bangs, bangs + 0.005, bangs + 0.05, bangs + 0.17, 0.80, 0.98]
    if length == "medium":
        base[6:] = [1.08, 1.10, 1.14, 1.24, 1.42, 1.9]
    elif length == "long":
        base[6:] = [1.06, 1.08, 1.12, 1.22, 1.42, 1.9]
    border = np.interp(np.arange(181), turns, base).astype(np.float32)
    kernel = np.hanning(9 if line == "widows_peak" and not bangs else 15)
    border = np.convolve(np.pad(border, 8, mode="edge"), kernel / kernel.sum(), mode="same")[8:-8].astype(np.float32)
    thick = {"bald": 0.0, "short": 0.075, "medium": 0.12, "long": 0.13}[length] * (0.85 + 0.4 * look.shape["volume"])
    thick *= {"straight": 0.9, "wavy": 1.1, "curly": 1.45}[person.traits["hair_type"]]
    thick *= 0.8 if person.traits["age"] == "old" else 1.0
    return Hair(border=border, thick=thick, bangs=bangs, present=length != "bald")


@dataclass(frozen=True, kw_only=True)
class Head:
    """`stack` holds, per chart cell: radius, the outward normal (3) and the skin's hollowness (0..1)."""

    stack: Floats
    radius: Floats
    features: Features
    hair: Hair
    hat_line: float
    half_width: float

    def points(self, s: Floats, t: Floats, radius: Floats) -> tuple[Floats, Floats, Floats]:
        x, y, z = to_direction(s, t)
        return x * radius, y * radius, z * radius


def _skull(person: Person) -> Floats:
    """The smooth head, before any feature."""
    tall = np.abs(grid()[3])
    angle, flat = _upness()
    shape = person.shape
    outline = np.array(_OUTLINES[person.traits["face_shape"]])
    jaw = 0.035 if person.traits["gender"] == "male" else -0.03
    outline[1:4] += jaw + 0.01 * shape["jaw"]
    if person.has("chubby"):
        outline += [0.0, 0.03, 0.065, 0.085, 0.075, 0.04, 0.012, 0.0, 0.0, 0.0]
    table = np.interp(_DEGREES, _ANGLES, outline)
    kernel = np.hanning(25)
    table = np.convolve(np.pad(table, 12, mode="reflect"), kernel / kernel.sum(), mode="valid").astype(np.float32)
    place = np.clip(angle + 90.0, 0.0, 179.99)
    whole = place.astype(np.int32)
    rho = table.take(whole) + (table[1:] - table[:-1]).take(whole) * (place - whole)
    rho *= 1.0 + 0.02 * (shape["face_width"] * (1.0 - tall) + shape["face_height"] * tall)
    power, deep = _bulge()
    sum_of = np.power(flat / rho, power) + deep
    out: Floats = np.power(sum_of, -1.0 / power).astype(np.float32)
    return out


def _relief(radius: Floats, person: Person, f: Features) -> None:
    """Raise and carve the features, in place."""
    s, t = lines()
    male = person.traits["gender"] == "male"
    eye, mouth, nose = f.eye, f.mouth, f.nose
    # forehead, brow ridge, sockets, lids
    add_bumps(radius, 0.24, 0.27, 0.17, 0.06, 0.048 if male else 0.008)
    add_bumps(radius, eye.s - 0.03, eye.t + 0.04, 0.15, 0.085, -0.082)
    add_bumps(radius, eye.s, eye.t + 0.005, 0.115, 0.07, 0.052)
    add_bumps(radius, 0.15, 0.04, 0.05, 0.07, -0.030)
    if person.has("eye_bags"):
        add_bumps(radius, eye.s - 0.01, eye.t - eye.lower - 0.065, 0.10, 0.028, 0.028)
        add_bumps(radius, eye.s - 0.01, eye.t - eye.lower - 0.125, 0.11, 0.02, -0.022)
    # nose: a ridge that grows to the tip, wings, and the fall to the lip
    drop = np.clip((nose.top + 0.16 - t) / (nose.top + 0.16 - nose.base), 0.0, 1.3)
    ridge = nose.height * (0.10 + 0.90 * np.power(np.minimum(drop, 0.93) / 0.93, 1.35)) * smooth(1.13, 0.95, drop)
    width = nose.bridge * (0.95 + 0.35 * drop)
    radius += ridge * np.exp(-((s / width) ** 2) / 2.0) * smooth(nose.top + 0.2, nose.top - 0.1, t)
    tip = (0.035, 0.075) if nose.pointy else (0.062, 0.042)
    add_bump(radius, 0.0, nose.base + 0.085, tip[0], 0.045, tip[1])
    add_bumps(radius, nose.width * 0.62, nose.base + 0.065, nose.width * 0.30, 0.042, 0.085)
    add_bumps(radius, nose.width * 1.12, nose.base + 0.07, 0.028, 0.05, -0.018)
    # cheeks and jaw
    add_bumps(radius, 0.52, -0.14, 0.15, 0.09, 0.082 if person.has("high_cheekbones") else 0.022)
    add_bumps(radius, 0.56, -0.46, 0.15, 0.15, -0.055 if person.has("high_cheekbones") else 0.0)
    add_bumps(radius, 0.48, -0.40, 0.21, 0.2, 0.07 if person.has("chubby") else 0.0)
    add_bumps(radius, 0.38, -0.27, 0.14, 0.10, 0.05 * f.smile)
    fold = 0.016 * f.smile + {"young": 0.0, "middle_aged": 0.010, "old": 0.020}[person.traits["age"]]
    for step in range(5):
        share = step / 4.0
        add_bumps(radius, 0.19 + (mouth.half * 0.12 + 0.13) * share, -0.36 - 0.25 * share, 0.03, 0.045, -fold)
    add_bumps(radius, 0.46, -0.80, 0.13, 0.12, 0.045 if person.traits["age"] == "old" else 0.0)
    # lips, philtrum, chin
    add_bump(radius, 0.0, mouth.t, 0.23, 0.13, 0.036)
    inside = np.flatnonzero(np.abs(s[0] / mouth.half) < 1.0)
    near = slice(int(inside[0]), int(inside[-1]) + 1)
    u = s[:, near] / mouth.half
    upper, low_line = mouth.inner_upper(u), mouth.inner_lower(u)
    top, bottom = mouth.outer_upper(u), mouth.outer_lower(u)
    for low, high, swollen in ((upper, top, 0.42 * mouth.upper), (bottom, low_line, 0.20 * mouth.lower + 0.008)):
        part = np.clip((t - low) / np.maximum(high - low, 1e-3), -0.35, 1.35)
        swell = np.maximum(1.0 - np.abs((part - 0.5) / 0.85) ** 2.4, 0.0) * np.power(np.maximum(1.0 - u * u, 0.0), 0.6)
        radius[:, near] += (swollen * swell).astype(np.float32)
    if f.jaw_open > 0:
        deep = np.minimum(t - low_line, upper - t)
        radius[:, near] -= (0.035 * smooth(0.0, 0.03, deep)).astype(np.float32)
    add_bump(radius, 0.0, mouth.outer_upper(np.zeros(1, np.float32))[0] + 0.05, 0.022, 0.05, -0.014)
    below = float(mouth.outer_lower(np.zeros(1, np.float32))[0])
    add_bump(radius, 0.0, below - 0.07, 0.15, 0.045, -0.024)
    add_bump(radius, 0.0, f.chin, 0.15, 0.10, 0.05 + 0.015 * male + 0.012 * person.shape["chin"])
    radius += (0.40 * f.jaw_open * smooth(-0.72, -1.0, t) * smooth(0.75, 0.2, np.abs(s))).astype(np.float32)
    if person.has("double_chin"):
        add_bump(radius, 0.0, f.chin - 0.145, 0.30, 0.026, -0.05)
        add_bump(radius, 0.0, f.chin - 0.27, 0.34, 0.075, 0.13)
        add_bumps(radius, 0.52, -0.9, 0.16, 0.14, 0.05)
    if person.has("dimples"):
        add_bumps(radius, mouth.half + 0.10, mouth.t + 0.02, 0.024, 0.035, -0.035 - 0.02 * f.smile)
    if person.traits["skin_texture"] == "wrinkled":
        furrows = 0.0085 * np.sin((t - 0.05 * np.cos(s * 4.0)) * 62.0)
        radius += (furrows * smooth(0.38, 0.46, t) * smooth(0.8, 0.68, t) * smooth(0.6, 0.3, np.abs(s))).astype(
            np.float32
        )


def over_hat_line(y: Floats, z: Floats, line: float) -> Floats:
    """How far a direction lies above the lower edge of a hat, which sits higher on the forehead."""
    return y - 0.12 * z - np.float32(line)


def build_head(person: Person, look: Look, features: Features) -> Head:
    """The relief of `person` in `look`, with its normals."""
    s, t = lines()
    radius = _skull(person)
    half_width = float(radius[len(radius) // 2].max())
    _relief(radius, person, features)
    skin = radius.copy()
    hair = hair_of(person, look)
    if hair.present:
        inside = hair.grid_line()
        cover = smooth(-0.02, 0.13, inside)
        part = 0.022 * np.exp(-(((s - 0.22 * person.shape["part"]) / 0.035) ** 2)) * smooth(0.5, 0.9, t)
        lift = hair.thick * cover * (1.0 + 0.35 * smooth(0.2, 1.3, t)) - (0.0 if hair.bangs else part)
        if hair.bangs:
            lift += 0.045 * smooth(-0.01, 0.03, inside) * smooth(0.75, 0.5, _around()[0]) * smooth(-0.2, 0.2, t)
        radius = radius + np.where(inside > -0.03, lift, 0.0).astype(np.float32)
    if look.traits["beard"] in ("goatee", "full"):
        chin = smooth(0.3, 0.12, np.abs(s)) if look.traits["beard"] == "goatee" else np.float32(1.0)
        radius = radius + (0.045 * chin * smooth(-0.8, -0.95, t) * smooth(-1.35, -1.1, t)).astype(np.float32)
    hat_line = 9.0
    if look.has("hat"):
        hat_line = 0.30 + 0.06 * look.shape["fringe"]
        *_, y, z = grid()
        under = over_hat_line(y, z, hat_line)
        cap = smooth(-0.01, 0.03, under)
        rim = smooth(0.0, 0.03, under) - smooth(0.15, 0.18, under)
        dome = np.maximum(skin + 0.13 + hair.thick * 0.5, 0.96 + 0.14 * smooth(0.5, 1.0, y))
        dome = dome + 0.035 * rim * (look.shape["hat_kind"] < 0.5)
        radius = np.where(cap > 0, np.maximum(radius, radius + (dome - radius) * cap), radius).astype(np.float32)
    return Head(
        stack=_with_normals(radius, radius - skin),
        radius=radius,
        features=features,
        hair=hair,
        hat_line=hat_line,
        half_width=half_width,
    )


def _with_normals(radius: Floats, lift: Floats) -> Floats:
    """The stack [GRID, GRID, 5]: radius, outward normal, and how much lies on the skin here."""
    _, _, x, y, z = grid()
    place: Floats = np.empty((3, *radius.shape), dtype=radius.dtype)
    for axis, along in enumerate((x, y, z)):
        np.multiply(along, radius, out=place[axis])
    along_s, along_t = np.empty_like(place), np.empty_like(place)
    along_s[:, :, 1:-1] = (place[:, :, 2:] - place[:, :, :-2]) * (0.5 / STEP)
    along_t[:, 1:-1] = (place[:, 2:] - place[:, :-2]) * (0.5 / STEP)
    for edge, near in ((0, 1), (-1, -2)):
        along_s[:, :, edge], along_t[:, edge] = along_s[:, :, near], along_t[:, near]
    normal = [along_s[i] * along_t[j] - along_s[j] * along_t[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    length = np.sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]) + 1e-6
    stack: Floats = np.empty((*radius.shape, 5), dtype=np.float32)
    stack[:, :, 0], stack[:, :, 4] = radius, lift
    for axis in range(3):
        stack[:, :, 1 + axis] = normal[axis] / length
    return stack

"""The drawn lines of one face in one expression: eyes, brows, nose and lips as curves on the head's chart.

Odd here: this is the only place that knows where a feature is. The relief, the skin, the label map and the
landmarks all ask the same curves, which is why they cannot disagree. `u` runs along a feature from -1 to 1;
for eyes and brows it is mirrored, so that u = -1 is always the end near the nose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m3face.synthetic.chart import Floats
from m3face.synthetic.people import Look, Person


def _open(u: Floats, power: float) -> Floats:
    return np.power(np.maximum(1.0 - u * u, 0.0), power)


@dataclass(frozen=True, kw_only=True)
class Eye:
    """`u`, `v` are chart units along and across the line between the corners; the lids meet at u = -1 and 1."""

    s: float
    t: float
    half: float
    tilt: float
    upper: float
    lower: float

    def local(self, s: Floats, t: Floats, side: float) -> tuple[Floats, Floats]:
        across, along = s * side - self.s, t - self.t
        return across / self.half, along - self.tilt * across

    def upper_lid(self, u: Floats) -> Floats:
        return self.upper * _open(u, 0.72) * (1.0 - 0.16 * u)

    def lower_lid(self, u: Floats) -> Floats:
        return -self.lower * _open(u, 0.8) * (1.0 + 0.22 * u)

    def place(self, u: Floats, v: Floats, side: float) -> tuple[Floats, Floats]:
        across = u * self.half
        return (self.s + across) * side, self.t + v + self.tilt * across


@dataclass(frozen=True, kw_only=True)
class Brow:
    """An arched band; `rise` lifts the outer end, `inner` the inner end, `arch` the middle."""

    s: float
    t: float
    half: float
    thick: float
    arch: float
    rise: float
    inner: float

    def middle(self, u: Floats) -> Floats:
        lift = self.arch * np.exp(-(((u - 0.25) / 0.62) ** 2))
        slope = self.rise * (u + 1.0) / 2.0 + self.inner * (1.0 - u) / 2.0
        out: Floats = self.t + lift + slope - 0.03 * np.maximum(u, 0.0) ** 2
        return out

    def band(self, u: Floats) -> Floats:
        """Half the height of the band."""
        taper = 1.0 - 0.42 * np.clip(u * 0.5 + 0.5, 0.0, 1.0) ** 1.6
        ends = np.power(np.maximum(1.0 - np.abs(u) ** 5, 0.0), 0.5)
        out: Floats = self.thick * taper * ends
        return out


@dataclass(frozen=True, kw_only=True)
class Mouth:
    """`curl` lifts the corners, `gap` opens the lips, `drop` is how far the jaw takes the lower lip down."""

    t: float
    half: float
    upper: float
    lower: float
    curl: float
    gap: float
    drop: float

    def line(self, u: Floats) -> Floats:
        out: Floats = self.t + self.curl * (u * u - 0.35) - 0.008 * np.exp(-((u / 0.16) ** 2))
        return out

    def inner_upper(self, u: Floats) -> Floats:
        return self.line(u) + self.gap * 0.30 * _open(u / 0.86, 0.6)

    def inner_lower(self, u: Floats) -> Floats:
        return self.line(u) - self.gap * 0.70 * _open(u / 0.86, 0.7)

    def outer_upper(self, u: Floats) -> Floats:
        bow = 0.80 + 0.30 * np.exp(-(((np.abs(u) - 0.24) / 0.17) ** 2)) - 0.08 * np.exp(-((u / 0.1) ** 2))
        out: Floats = self.inner_upper(u) + self.upper * bow * _open(u, 0.5)
        return out

    def outer_lower(self, u: Floats) -> Floats:
        return self.inner_lower(u) - self.lower * _open(u, 0.48)


@dataclass(frozen=True, kw_only=True)
class Nose:
    """`width` is half the width over the wings, `base` its lower end, `tip` the height of the point."""

    top: float
    base: float
    width: float
    bridge: float
    height: float
    pointy: float

    def half(self, t: Floats) -> Floats:
        """Half the labelled width at a height; negative above and below the nose."""
        down = np.clip((self.top - t) / (self.top - self.base), 0.0, 1.0)
        flare = np.power(np.clip((down - 0.5) / 0.38, 0.0, 1.0), 1.5)
        wide = self.bridge * (0.7 + 0.6 * down) + (self.width - self.bridge * 1.3) * flare
        low = np.clip((t - self.base) / 0.09, 0.0, 1.0)
        wide = wide * np.sqrt(np.maximum(1.0 - (1.0 - low) ** 2 * 0.75, 0.0))
        return np.where((t > self.top) | (t < self.base), np.float32(-1.0), wide.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Features:
    eye: Eye
    brow: Brow
    nose: Nose
    mouth: Mouth
    chin: float
    smile: float
    jaw_open: float


_SMILE = {"none": 0.0, "slight": 0.5, "broad": 0.9, "laughing": 1.0}


def features_of(person: Person, look: Look) -> Features:
    """The curves of `person` with the expression of `look`."""
    p, mood, amount = person.shape, look.traits["emotion"], look.shape["amount"]
    smile = _SMILE[look.traits["smile"]] * (0.92 + 0.16 * amount)
    narrow, laughing, surprised = person.has("narrow_eyes"), look.traits["smile"] == "laughing", mood == "surprised"
    female = person.traits["gender"] == "female"
    squint = (1.0 - 0.2 * smile) * (1.42 if surprised else 0.84 if mood == "angry" else 0.92 if mood == "sad" else 1.0)
    size = (1.0 + 0.07 * p["eye_size"]) * (1.09 if female else 0.93) * (0.94 if person.traits["age"] == "old" else 1.0)
    eye = Eye(
        s=0.366 + 0.018 * p["eye_gap"],
        t=0.03 + 0.012 * p["eye_height"],
        half=(0.166 + 0.004 * narrow) * size,
        tilt=0.05 + 0.07 * p["eye_tilt"] - (0.10 if mood == "sad" else 0.0),
        upper=(0.048 if narrow else 0.088) * squint * size,
        lower=(0.020 if narrow else 0.042) * squint * size,
    )
    lift = {"surprised": 0.075, "angry": -0.025}.get(mood, 0.0)
    arched, bushy = person.has("arched_brows"), person.has("bushy_brows")
    brow = Brow(
        s=0.36,
        t=0.225 + 0.012 * p["brow_height"] + lift + (0.012 if female else 0.0),
        half=0.215,
        thick=(0.05 if bushy else 0.029) * (0.78 if female else 1.16),
        arch=0.105 if arched else 0.026,
        rise=-0.045 * arched + 0.015 * p["brow_slope"] + {"angry": 0.045, "sad": -0.05}.get(mood, 0.0),
        inner={"angry": -0.055, "sad": 0.075}.get(mood, 0.0) - 0.01 * arched,
    )
    big, pointy = person.has("big_nose"), person.has("pointy_nose")
    nose = Nose(
        top=0.12,
        base=-0.405 - 0.02 * p["nose_length"] - 0.03 * big,
        width=(0.205 if big else 0.142) * (0.92 if pointy else 1.04) + 0.008 * p["nose_width"] + 0.012 * smile,
        bridge=(0.066 if big else 0.052) * (0.85 if pointy else 1.1),
        height=(0.235 if big else 0.175) + (0.06 if pointy else 0.0) + 0.012 * p["nose_height"],
        pointy=1.0 if pointy else 0.0,
    )
    gap = 0.0
    if look.has("mouth_open"):
        gap = {"laughing": 0.24, "broad": 0.12, "slight": 0.08}.get(look.traits["smile"], 0.095) * (0.9 + 0.2 * amount)
        gap = 0.25 * (0.9 + 0.25 * amount) if surprised else gap
    full = (0.098 if person.has("big_lips") else 0.052) * (1.0 + 0.08 * p["lip"]) * (1.0 - 0.14 * smile)
    full *= (1.08 if female else 0.92) * (0.86 if person.traits["age"] == "old" else 1.0)
    mouth = Mouth(
        t=-0.645 + 0.014 * p["mouth_height"] + (0.02 if laughing else 0.0),
        half=(0.235 + 0.014 * p["mouth_width"] + 0.016 * person.has("big_lips"))
        * (1.0 + 0.34 * smile - (0.2 if surprised else 0.0) - (0.06 if mood == "angry" else 0.0)),
        upper=full * 0.82,
        lower=full * 1.32,
        curl=0.105 * smile - (0.062 if mood == "sad" else 0.03 if mood == "angry" else 0.0),
        gap=gap,
        drop=0.55 * gap,
    )
    return Features(eye=eye, brow=brow, nose=nose, mouth=mouth, chin=-0.93 - 0.35 * gap, smile=smile, jaw_open=gap)


def landmark_points(features: Features) -> tuple[Floats, Floats]:
    """The 68 points in chart coordinates, iBUG order (point 0 at the picture's left ear)."""
    s, t = np.zeros(68, dtype=np.float32), np.zeros(68, dtype=np.float32)
    turn = np.radians(np.linspace(-96.0, 96.0, 17))
    reach = np.interp(np.abs(turn), np.radians([0, 14, 40, 60, 80, 96]), [0.985, 1.0, 1.06, 1.15, 1.25, 1.33])
    s[:17] = np.sin(turn) * reach
    t[:17] = -np.cos(turn) * reach * (1.0 + 0.3 * features.jaw_open * np.cos(turn) ** 2)
    brow = features.brow
    along = np.linspace(0.82, -0.82, 5, dtype=np.float32)
    for first, side, order in ((17, -1.0, along), (22, 1.0, along[::-1])):
        s[first : first + 5] = side * (brow.s + order * brow.half)
        t[first : first + 5] = brow.middle(order)
    nose = features.nose
    t[27:31] = np.linspace(nose.top - 0.05, nose.base + 0.12, 4)
    s[31:36] = np.linspace(-0.82, 0.82, 5) * nose.width
    t[31:36] = nose.base + np.array([0.055, 0.03, 0.018, 0.03, 0.055])
    eye = features.eye
    ring = np.array([0.93, 0.36, -0.36, -0.93, -0.36, 0.36], dtype=np.float32)
    high = np.array([0, 1, 1, 0, -1, -1])
    lids = np.where(high > 0, eye.upper_lid(ring), np.where(high < 0, eye.lower_lid(ring), np.float32(0.0)))
    s[36:42], t[36:42] = eye.place(ring, lids, -1.0)
    mirrored = np.array([3, 2, 1, 0, 5, 4])
    s[42:48], t[42:48] = eye.place(ring[mirrored], lids[mirrored], 1.0)
    mouth = features.mouth
    top = np.array([-0.92, -0.62, -0.24, 0.0, 0.24, 0.62, 0.92], dtype=np.float32)
    bottom = np.array([0.66, 0.33, 0.0, -0.33, -0.66], dtype=np.float32)
    s[48:60] = np.concatenate([top, bottom]) * mouth.half
    t[48:60] = np.concatenate([mouth.outer_upper(top), mouth.outer_lower(bottom)])
    corners = top[[0, 6]]
    t[[48, 54]] = (mouth.outer_upper(corners) + mouth.outer_lower(corners)) / 2.0
    inside = np.array([-0.84, -0.4, 0.0, 0.4, 0.84], dtype=np.float32)
    under = np.array([0.4, 0.0, -0.4], dtype=np.float32)
    s[60:68] = np.concatenate([inside, under]) * mouth.half
    t[60:68] = np.concatenate([mouth.inner_upper(inside), mouth.inner_lower(under)])
    t[[60, 64]] = (mouth.inner_upper(inside[[0, 4]]) + mouth.inner_lower(inside[[0, 4]])) / 2.0
    return s, t

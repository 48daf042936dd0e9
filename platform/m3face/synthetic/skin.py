"""What is painted on the face: skin, nose, brows, eyes and lips, each with its label.

Odd here: nothing is drawn by pixels of the picture; each function takes chart points that the camera hit,
with their colours in linear light, and changes colours, normals and labels where its feature is. Edges are
as wide as a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3face.faces import ID
from m3face.synthetic.canvas import put_rows
from m3face.synthetic.chart import Floats, lay, scale_rows, smooth
from m3face.synthetic.features import Features
from m3face.synthetic.people import Look, Person


def colour(text: str) -> Floats:
    """An sRGB hex colour in linear light."""
    value = np.array([int(text[i : i + 2], 16) / 255.0 for i in (0, 2, 4)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


_TONES = ("f4d9cb", "efcfbd", "ecc9a8", "e0b78f", "cfa078", "a97852", "875a3e", "643f2d", "523529", "3f2a21")
_HAIR = {
    "black": "1c1715", "brown": "5a3822", "blond": "d9ac5c", "red": "933d1c", "gray": "8b8a89", "white": "e6e3dc",
}  # fmt: skip
_IRIS = {"brown": "5b3013", "blue": "3f86c8", "green": "4f8f3a", "gray": "8d99a2"}


def skin_colour(person: Person) -> Floats:
    base = colour(_TONES[int(person.traits["skin_tone"][5:]) - 1])
    return base * np.float32(1.0 + 0.04 * person.shape["skin_shift"])


def hair_colour(person: Person) -> Floats:
    base = colour(_HAIR[person.traits["hair_colour"]])
    return base * np.float32(1.0 + 0.15 * person.shape["hair_shift"])


@dataclass(kw_only=True)
class Paint:
    """The surface at each hit: changed in place by the functions below. `s`, `t` are its chart points."""

    s: Floats
    t: Floats
    albedo: Floats
    normal: Floats
    gloss: Floats
    soft: Floats
    label: NDArray[np.uint8]
    grain: float

    def mix(self, at: NDArray[np.intp], tint: Floats, share: Floats) -> None:
        """Blend `tint` (a colour, or one a point) over the albedo by `share`."""
        seen = np.flatnonzero(share)
        if not seen.size:
            return
        if seen.size < share.size:
            at, share = at.take(seen), share.take(seen)
            tint = tint.take(seen, axis=0) if tint.ndim == 2 else tint
        new = self.albedo.take(at, axis=0)
        for channel in range(3):
            own = new[:, channel]
            own += (tint[..., channel] - own) * share
        put_rows(self.albedo, at, new)

    def inside(self, low_s: float, high_s: float, low_t: float, high_t: float) -> NDArray[np.intp]:
        s, t = self.s, self.t
        return np.flatnonzero((s > low_s) & (s < high_s) & (t > low_t) & (t < high_t))

    def stroke(
        self, a: tuple[float, float], b: tuple[float, float], width: float, tint: Floats, strength: float
    ) -> None:
        """A soft line between two chart points."""
        reach = width * 2.5
        at = self.inside(
            min(a[0], b[0]) - reach, max(a[0], b[0]) + reach, min(a[1], b[1]) - reach, max(a[1], b[1]) + reach
        )
        if at.size:
            along = (b[0] - a[0], b[1] - a[1])
            s, t = self.s[at] - a[0], self.t[at] - a[1]
            share = np.clip((s * along[0] + t * along[1]) / (along[0] ** 2 + along[1] ** 2), 0.0, 1.0)
            far = (s - share * along[0]) ** 2 + (t - share * along[1]) ** 2
            taper = width * (1.0 - 0.5 * share)
            self.mix(at, tint, np.exp(-far / taper**2) * np.float32(strength))


def paint_skin(paint: Paint, person: Person, look: Look, features: Features) -> None:
    """Colour, redness, pores, spots and lines of the bare skin."""
    s, t = paint.s, paint.t
    base, sides = skin_colour(person), np.abs(s)
    paint.albedo[:] = base
    blood = base * np.array([1.0, 0.52, 0.48], dtype=np.float32)
    ruddy = 0.20 * np.exp(-(((sides - 0.45) / 0.2) ** 2) - ((t + 0.27) / 0.17) ** 2)
    ruddy += 0.22 * np.exp(-((s / 0.13) ** 2) - ((t + 0.31) / 0.1) ** 2)
    whole = np.arange(s.size)
    if person.has("rosy_cheeks") or look.has("heavy_makeup"):
        tint = base * np.array([1.02, 0.36, 0.36], dtype=np.float32) + np.float32(0.012)
        strength = 0.66 if person.has("rosy_cheeks") else 0.25
        paint.mix(whole, tint, strength * np.exp(-(((sides - 0.47) / 0.18) ** 2) - ((t + 0.25) / 0.14) ** 2))
    offset = float(person.seed % 251)
    clouds = lay("cloud", s * 60 + offset, t * 60 + offset)
    paint.mix(whole, blood, np.clip(ruddy + 0.05 * clouds, 0.0, 0.6))
    texture = person.traits["skin_texture"]
    rough = {"smooth": 0.018, "rough": 0.09, "wrinkled": 0.06}[texture]
    pores = lay("grain", s * 130 + offset, t * 130)
    shade = 1.0 + np.float32(rough) * pores + np.float32(0.012 + 0.03 * (texture == "rough")) * clouds
    scale_rows(paint.albedo, np.maximum(shade, 0.3))
    if texture == "rough":
        paint.normal[:, 0] += 0.10 * pores
        paint.normal[:, 1] += 0.10 * lay("grain", t * 110, s * 110 + offset)
    dark = base * np.array([0.50, 0.38, 0.34], dtype=np.float32)
    if person.has("freckles"):
        spots = lay("spots", s * 165 + offset, t * 165 + 2 * offset)
        place = np.exp(-((sides / 0.62) ** 4) - ((t + 0.22) / 0.25) ** 4)
        paint.mix(whole, dark, np.clip(spots * place * 0.9, 0.0, 1.0))
    if person.has("moles"):
        rng = np.random.default_rng([person.seed, 5])
        brown = colour("2a1410") + base * np.float32(0.08)
        places = ((0.42, -0.5), (-0.34, -0.42), (0.5, -0.2), (-0.56, -0.32), (0.25, -0.82), (-0.3, 0.45), (0.2, 0.5))
        for pick in rng.permutation(len(places))[: int(rng.integers(2, 4))]:
            at_s, at_t = np.array(places[pick]) + rng.uniform(-0.04, 0.04, 2)
            size = float(rng.uniform(0.026, 0.036))
            at = paint.inside(at_s - 0.1, at_s + 0.1, at_t - 0.1, at_t + 0.1)
            far = (paint.s[at] - at_s) ** 2 + (paint.t[at] - at_t) ** 2
            paint.mix(at, brown, smooth(size * 1.25, size * 0.7, np.sqrt(far)) * 0.92)
    paint.gloss[:] = 0.16 + 0.16 * np.exp(-((s / 0.28) ** 2) - ((t - 0.5) / 0.22) ** 2)
    paint.gloss += 0.14 * np.exp(-((s / 0.08) ** 2))
    paint.soft[:] = 1.0
    _lines(paint, person, features, dark)


def _lines(paint: Paint, person: Person, f: Features, dark: Floats) -> None:
    """Wrinkles, dimples, bags: what the relief is too smooth to show."""
    eye, mouth = f.eye, f.mouth
    old = {"young": 0.0, "middle_aged": 0.5, "old": 0.95}[person.traits["age"]]
    wrinkled = person.traits["skin_texture"] == "wrinkled"
    for side in (-1.0, 1.0):
        corner = (side * (eye.s + eye.half + 0.035), eye.t + eye.tilt * eye.half)
        if person.has("crows_feet"):
            for rise in (0.085, 0.02, -0.045, -0.10):
                end = (corner[0] + side * 0.15, corner[1] + rise * 1.35)
                paint.stroke((corner[0], corner[1] + rise * 0.35), end, 0.013, dark, 0.72)
        if person.has("eye_bags"):
            low = eye.t - eye.lower - 0.075
            bag = (
                (eye.s - 0.13, low + 0.03),
                (eye.s - 0.05, low - 0.025),
                (eye.s + 0.05, low - 0.03),
                (eye.s + 0.13, low + 0.02),
            )
            for a, b in zip(bag, bag[1:], strict=False):
                paint.stroke(
                    (side * a[0], a[1]), (side * b[0], b[1]), 0.03, dark * np.array([0.95, 0.9, 1.1], np.float32), 0.5
                )
        if person.has("dimples"):
            at = side * (mouth.half + 0.095)
            paint.stroke((at, mouth.t + 0.055), (at + side * 0.012, mouth.t - 0.03), 0.02, dark, 0.6 + 0.3 * f.smile)
        fold = old + 0.35 * f.smile
        if fold > 0:
            start, end = (side * 0.19, -0.35), (side * (mouth.half * 0.55 + 0.19), mouth.t + 0.06)
            middle = ((start[0] + end[0]) / 2 + side * 0.03, (start[1] + end[1]) / 2 + 0.03)
            paint.stroke(start, middle, 0.022, dark, 0.6 * fold)
            paint.stroke(middle, end, 0.022, dark, 0.6 * fold)
        if old:
            low = eye.t - eye.lower - 0.07
            paint.stroke(
                (side * (eye.s - 0.14), low + 0.01), (side * (eye.s + 0.06), low - 0.045), 0.018, dark, 0.36 * old
            )
            paint.stroke((side * 0.30, 0.46), (0.0, 0.48), 0.013, dark, 0.45 * old)
        if old > 0.9:
            paint.stroke((side * 0.31, -0.66), (side * 0.34, -0.86), 0.018, dark, 0.45)
            paint.stroke((side * 0.34, 0.55), (0.0, 0.57), 0.013, dark, 0.42)
        if wrinkled:
            paint.stroke((side * 0.055, 0.15), (side * 0.06, 0.27), 0.012, dark, 0.55)
            paint.stroke((side * 0.36, -0.56), (side * 0.42, -0.78), 0.013, dark, 0.45)
            paint.stroke((side * 0.50, -0.36), (side * 0.52, -0.62), 0.012, dark, 0.32)
    if wrinkled:
        for height in (0.42, 0.51, 0.60):
            for left, right in ((-0.42, -0.2), (-0.2, 0.02), (0.42, 0.2), (0.2, 0.02)):
                ends = (left, height - 0.05 * abs(left)), (right, height - 0.05 * abs(right))
                paint.stroke(*ends, 0.012, dark, 0.62)


def paint_nose(paint: Paint, person: Person, f: Features) -> None:
    """The nose's label and nostrils."""
    nose = f.nose
    at = paint.inside(-0.35, 0.35, nose.base - 0.06, nose.top + 0.02)
    s, t = np.abs(paint.s[at]), paint.t[at]
    paint.label[at[s < nose.half(t)]] = ID["nose"]
    dark = skin_colour(person) * np.array([0.22, 0.13, 0.11], dtype=np.float32)
    hole = ((s - nose.width * 0.46) / (nose.width * 0.28)) ** 2 + ((t - nose.base - 0.022) / 0.026) ** 2
    paint.mix(at, dark, smooth(1.5, 0.5, hole) * 0.9)
    wing = np.abs(s - nose.half(t) * 1.0) / 0.022
    low = smooth(nose.base + 0.13, nose.base + 0.07, t)
    paint.mix(at, dark * 2.6, np.exp(-(wing**2)) * low * 0.45)


def paint_brows(paint: Paint, person: Person, f: Features) -> None:
    brow = f.brow
    tint = hair_colour(person) * np.float32(0.62) + skin_colour(person) * np.float32(0.06)
    if person.traits["hair_colour"] in ("blond", "red"):
        tint = tint * np.float32(0.62)
    for side, name in ((-1.0, "r_brow"), (1.0, "l_brow")):
        first, last = sorted((side * (brow.s - brow.half), side * (brow.s + brow.half)))
        at = paint.inside(first - 0.02, last + 0.02, -0.05, 0.52)
        u = (paint.s[at] * side - brow.s) / brow.half
        off = paint.t[at] - brow.middle(u)
        band = np.where(np.abs(u) < 1.0, brow.band(u), np.float32(-1.0))
        paint.label[at[np.abs(off) < band]] = ID[name]
        hairs = lay("strand", (u * 0.8 - off * 9.0) * 60.0 + 7 * side, off * 300)
        fray = band * (1.0 + 0.18 * hairs)
        cover = smooth(-0.010, 0.012, fray - np.abs(off)) * np.clip(0.86 + 0.16 * hairs, 0.3, 1.0)
        paint.mix(at, tint, np.where(band > 0, cover, 0.0).astype(np.float32))
        paint.gloss[at] *= 1.0 - 0.7 * cover


def paint_eyes(paint: Paint, person: Person, look: Look, f: Features, turn: Floats) -> None:
    """Eyeballs with iris, pupil and glint, lashes, lid crease and shadow."""
    eye, rng = f.eye, look.shape
    skin = skin_colour(person)
    dark = colour("140c0a") + skin * np.float32(0.02)
    crease = skin * np.array([0.42, 0.30, 0.27], dtype=np.float32)
    made_up = look.has("heavy_makeup")
    shadow = (colour("5a3a66"), colour("35507a"), colour("6a3a2a"), colour("3f5f52"))[int(rng["shadow_hue"] * 3.99)]
    lash = 0.030 if made_up else 0.019 if person.traits["gender"] == "female" else 0.013
    grain = paint.grain
    for side, name in ((-1.0, "r_eye"), (1.0, "l_eye")):
        first, last = sorted((side * (eye.s - eye.half), side * (eye.s + eye.half)))
        at = paint.inside(first - 0.14, last + 0.14, eye.t - 0.22, eye.t + 0.26)
        if not at.size:
            continue
        u, v = eye.local(paint.s[at], paint.t[at], side)
        upper, lower = eye.upper_lid(u), eye.lower_lid(u)
        near = smooth(1.3, 0.95, np.abs(u))
        if made_up:
            lid = smooth(0.13, 0.03, v - upper) * smooth(-0.02, 0.0, v - upper) * near
            paint.mix(at, shadow * np.float32(0.8) + skin * np.float32(0.12), lid * 0.82)
        fold = upper + 0.046 + 0.012 * (1.0 - u * u)
        paint.mix(at, crease, np.exp(-(((v - fold) / 0.013) ** 2)) * near * 0.6)
        paint.mix(at, crease, smooth(0.12, 0.0, np.abs(v - 0.02 - upper)) * near * 0.18)
        depth = np.minimum(upper - v, v - lower)
        inner = np.abs(u) < 1.0
        ball = np.flatnonzero(inner & (depth > -grain))
        if ball.size:
            _eyeball(paint, at[ball], u[ball], v[ball], depth[ball], upper[ball], person, look, eye.half, side, turn)
        open_at = at[inner & (depth > 0)]
        paint.label[open_at] = ID[name]
        # lashes: a dark line that thickens outwards and a wing past the corner
        thick = lash * (0.75 + 0.35 * np.clip(u, -1.0, 1.0))
        line = smooth(thick * 1.5 + grain * 0.4, thick * 0.4, np.abs(v - upper - thick * 0.35)) * smooth(
            1.12, 0.98, np.abs(u)
        )
        paint.mix(at, dark, line * 0.95)
        if made_up or person.traits["gender"] == "female":
            wing = (
                smooth(0.02, 0.008, np.abs(v - 0.16 * eye.half * (u - 0.85) * 2.0))
                * smooth(0.9, 1.0, u)
                * smooth(1.28, 1.12, u)
            )
            paint.mix(at, dark, wing * (0.9 if made_up else 0.5))
        low = smooth(0.016, 0.004, np.abs(v - lower + 0.004)) * smooth(1.05, 0.9, np.abs(u))
        paint.mix(at, dark if made_up else crease, low * (0.75 if made_up else 0.55))


def _eyeball(
    paint: Paint, at: NDArray[np.intp], u: Floats, v: Floats, depth: Floats, upper: Floats,
    person: Person, look: Look, half: float, side: float, turn: Floats,
) -> None:  # fmt: skip
    shape = look.shape
    gaze_s = (shape["gaze_x"] - 0.5) * 0.05 * side - float(turn[0, 2]) * 0.035 * side
    gaze_t = (shape["gaze_y"] - 0.5) * 0.015 + 0.008
    ds, dt = u * half - gaze_s, v - gaze_t
    far = np.sqrt(ds * ds + dt * dt)
    radius = 0.078
    white = np.array([0.66, 0.62, 0.60], dtype=np.float32) * (1.0 - 0.22 * u[:, None] ** 2)
    iris = colour(_IRIS[person.traits["eye_colour"]]) * np.float32(1.0 + 0.12 * person.shape["eye_shift"])
    rays = 1.0 + 0.20 * np.sin(np.arctan2(dt, ds) * 23.0) * smooth(0.2, 0.7, far / radius)
    glow = 1.0 + 0.65 * np.clip(-dt / radius, -0.6, 1.0)
    ring = 1.0 - 0.68 * smooth(0.72, 1.0, far / radius)
    tone = iris * (rays * glow * ring)[:, None]
    soft = max(paint.grain, 0.008)
    share = smooth(radius + soft, radius - soft, far)[:, None]
    body = white + (tone - white) * share
    body *= 1.0 - smooth(0.034 + soft * 0.8, 0.034 - soft * 0.8, far)[:, None] * np.float32(0.96)
    body *= (1.0 - 0.55 * smooth(0.05, 0.0, upper - v))[:, None]
    corner = smooth(-0.84, -0.97, u)[:, None]
    body += (np.array([0.45, 0.16, 0.14], dtype=np.float32) - body) * corner * 0.8
    bright = smooth(0.026, 0.012, np.hypot(ds + 0.028 - 0.056 * (shape["light_side"] > 0.5) * 1.0, dt - 0.028))
    body += bright[:, None] * np.float32(0.95)
    cover = smooth(-paint.grain, paint.grain, depth)
    paint.mix(at, body.astype(np.float32), cover)
    bulge = np.stack([u * side * 0.35, (v - 0.02) * 2.0, np.ones_like(u)], axis=1)
    paint.normal[at] = (paint.normal[at] + bulge) * np.float32(0.5)
    paint.gloss[at] = 0.5 * cover
    paint.soft[at] *= 1.0 - 0.6 * cover


def paint_mouth(paint: Paint, person: Person, look: Look, f: Features) -> None:
    """Lips, the dark between them, teeth and tongue."""
    mouth = f.mouth
    at = paint.inside(-mouth.half - 0.08, mouth.half + 0.08, mouth.t - 0.5, mouth.t + 0.4)
    if not at.size:
        return
    u, t = paint.s[at] / mouth.half, paint.t[at]
    inner = np.abs(u) < 1.0
    high, low = mouth.inner_upper(u), mouth.inner_lower(u)
    top, bottom = mouth.outer_upper(u), mouth.outer_lower(u)
    skin = skin_colour(person)
    lips = skin * np.array([0.84, 0.40, 0.40], dtype=np.float32) + colour("7a2a2c") * np.float32(0.20)
    gloss, cover = 0.30, 0.80
    if look.has("lipstick"):
        lips = (colour("c40f24"), colour("9a0f3c"), colour("d8286a"), colour("7d0f28"))[
            int(look.shape["lip_hue"] * 3.99)
        ]
        gloss, cover = 0.62, 0.97
    elif person.traits["gender"] == "male":
        cover = 0.62
    grain = paint.grain
    edge = np.minimum(top - t, t - bottom)
    share = np.where(inner, smooth(-grain, grain + 0.008, edge), 0.0).astype(np.float32)
    creases = 1.0 + 0.07 * lay("strand", u * 70.0, t * 60.0)
    upper_shade = np.where(t > (high + low) / 2, np.float32(0.80), np.float32(1.0))
    paint.mix(at, lips * (creases * upper_shade)[:, None], share * cover)
    paint.gloss[at] = paint.gloss[at] * (1.0 - share) + share * gloss * np.where(t > high, 0.4, 1.0)
    dark = skin * np.array([0.20, 0.09, 0.08], dtype=np.float32) + np.float32(0.004)
    line = np.exp(-(((t - (high + low) / 2) / 0.013) ** 2)) * smooth(1.06, 0.9, np.abs(u))
    line = line * np.float32(0.9 if mouth.gap == 0 else 0.0)
    paint.mix(at, dark, line)
    shade = np.exp(-(((t - bottom + 0.04) / 0.035) ** 2)) * smooth(0.9, 0.3, np.abs(u))
    paint.mix(at, skin * np.array([0.52, 0.42, 0.40], dtype=np.float32), shade * 0.42)
    paint.label[at[inner & (t <= top) & (t >= (high + low) / 2)]] = ID["u_lip"]
    paint.label[at[inner & (t < (high + low) / 2) & (t >= bottom)]] = ID["l_lip"]
    if mouth.gap <= 0:
        return
    deep = np.where(np.abs(u) < 0.86, np.minimum(high - t, t - low), np.float32(-1.0))
    hole = np.flatnonzero(deep > -grain)
    which, uu, tt = at[hole], u[hole], t[hole]
    body = np.tile(np.array([0.045, 0.010, 0.010], dtype=np.float32), (hole.size, 1))
    tongue = np.exp(-((uu / 0.45) ** 2) - ((tt - low[hole]) / (0.30 * mouth.gap + 0.02)) ** 2)
    body += (np.array([0.34, 0.085, 0.085], dtype=np.float32) - body) * (tongue * 0.8)[:, None]
    if look.traits["smile"] in ("broad", "laughing"):
        reach = 0.085 if look.traits["smile"] == "broad" else 0.10
        teeth = smooth(reach + grain, reach - grain, high[hole] - tt + 0.03 * uu * uu) * smooth(0.86, 0.72, np.abs(uu))
        gaps = 1.0 - 0.22 * np.power(np.abs(np.cos(uu * mouth.half * np.pi / 0.062)), 10)
        white = np.array([0.84, 0.80, 0.72], dtype=np.float32) * ((1.0 - 0.5 * uu * uu) * gaps)[:, None]
        body += (white - body) * teeth[:, None]
    body *= (0.55 + 0.45 * smooth(0.0, 0.05, high[hole] - tt))[:, None]
    cover_hole = smooth(-grain, grain, deep[hole])
    paint.mix(which, body, cover_hole)
    paint.gloss[which] *= 1.0 - 0.7 * cover_hole
    paint.label[at[deep > 0]] = ID["mouth"]

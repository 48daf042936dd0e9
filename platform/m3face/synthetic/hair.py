"""What grows or is worn on the head's surface: whiskers, hair and the crown of a hat.

Odd here: hair has no geometry of its own strands; noise stretched along the fall from the crown colours it,
bends its normals and breaks its highlight, which at these sizes reads as strands. Whiskers stay labelled as
skin, as CelebAMask-HQ does.
"""

from __future__ import annotations

import numpy as np

from m3face.faces import ID
from m3face.synthetic.chart import Floats, lay, smooth, to_direction
from m3face.synthetic.features import Features
from m3face.synthetic.head import Head, over_hat_line
from m3face.synthetic.people import Look, Person
from m3face.synthetic.skin import Paint, colour, hair_colour


def paint_beard(paint: Paint, person: Person, look: Look, f: Features) -> None:
    """Stubble, goatee, full beard, mustache and sideburns: whiskers are skin in the label map."""
    style, s, t = look.traits["beard"], paint.s, paint.t
    if style == "none" and not look.has("mustache") and not look.has("sideburns"):
        return
    side, mouth = np.abs(s), f.mouth
    where = np.zeros_like(s)
    below = mouth.outer_lower(s / mouth.half)
    far = np.hypot(s * 0.92, t + 0.06)
    jaw = smooth(0.0, 0.16, far - 0.50 - 0.30 * smooth(0.25, 0.95, side)) * smooth(0.02, -0.28, t - 0.1 * side)
    chin = smooth(0.015, 0.06, below - t + 0.25 * np.maximum(side - mouth.half, 0.0))
    chin = np.where(side > mouth.half, smooth(0.0, 0.2, mouth.t - t + 0.55 * (side - mouth.half)), chin)
    low = smooth(-1.42, -1.25, t)
    if style in ("full", "stubble"):
        where = np.maximum(where, jaw * chin * low * smooth(1.36, 1.25, side))
    if style == "goatee":
        where = np.maximum(where, smooth(0.27, 0.20, side) * chin * low)
    top = mouth.outer_upper(s / mouth.half)
    lip = smooth(0.0, 0.025, t - top) * smooth(-0.435, -0.475, t + 0.25 * side * side)
    lip = lip * smooth(mouth.half + 0.12, mouth.half + 0.05, side)
    wide = np.where(side > mouth.half, smooth(mouth.t - 0.14, mouth.t - 0.06, t), lip)
    lip = np.where(
        side > mouth.half, wide * smooth(mouth.half + 0.11, mouth.half + 0.05, side) * smooth(-0.45, -0.52, t), lip
    )
    strength = np.where(where > 0, where * (0.5 if style == "stubble" else 0.93), 0.0)
    if look.has("mustache"):
        strength = np.maximum(strength, lip * 0.94)
    elif style == "stubble":
        strength = np.maximum(strength, lip * 0.45)
    if look.has("sideburns"):
        burn = smooth(0.045, 0.0, np.abs(side - 1.17 - 0.02 * t) - 0.10) * smooth(-0.56, -0.44, t) * smooth(0.4, 0.2, t)
        strength = np.maximum(strength, burn * 0.95)
    at = np.flatnonzero((strength > 0.01) & (paint.label == ID["skin"]))
    if not at.size:
        return
    strands = lay("strand", s[at] * 170.0, t[at] * 60.0 + 40.0 * side[at])
    grains = lay("grain", s[at] * 150.0, t[at] * 150.0)
    tint = hair_colour(person) * np.float32(0.8)
    noise = grains if style == "stubble" else strands
    tint = tint * np.maximum(1.0 + 0.28 * noise, 0.25)[:, None]
    paint.mix(at, tint, np.clip(strength[at] * (1.0 + 0.22 * noise), 0.0, 1.0).astype(np.float32))
    paint.normal[at, 0] += 0.16 * strands * strength[at]
    paint.gloss[at] *= 0.5
    paint.soft[at] *= 1.0 - 0.7 * strength[at]


def paint_hair(paint: Paint, person: Person, head: Head) -> None:
    """The hair cap: strands that run from the crown, frayed at the line."""
    if not head.hair.present:
        return
    line = head.hair.line(paint.s, paint.t)
    at = np.flatnonzero(line > -0.08)
    if not at.size:
        return
    x, y, z = to_direction(paint.s[at], paint.t[at])
    part = 0.3 * person.shape["part"]
    up = y * 0.86 - z * 0.5
    front = y * 0.5 + z * 0.86
    turn = np.arctan2(x - part * 0.4, front) * np.float32(40.0)
    fall = np.arccos(np.clip(up, -1.0, 1.0))
    albedo, normal, gloss = strands_of(person, turn, fall, paint.normal.take(at, axis=0))
    curl = {"straight": 0.012, "wavy": 0.02, "curly": 0.03}[person.traits["hair_type"]]
    fray = line[at] + np.float32(curl) * smooth(-0.1, 0.5, paint.t[at]) * lay("strand", turn * 2.0, fall * 20.0)
    root = 0.55 + 0.45 * smooth(0.0, 0.12, fray)
    cover = smooth(-paint.grain - 0.008, paint.grain + 0.008, fray)
    paint.mix(at, albedo * root[:, None], cover)
    for axis in range(3):
        own = paint.normal[:, axis]
        own[at] += (normal[:, axis] - own[at]) * cover
    paint.gloss[at] += (gloss - paint.gloss[at]) * cover
    paint.soft[at] *= 1.0 - cover
    paint.label[at[fray > 0]] = ID["hair"]


def strands_of(person: Person, turn: Floats, fall: Floats, normal: Floats) -> tuple[Floats, Floats, Floats]:
    """Colour, bent normal and gloss of hair at `turn` (which strand, tile units) and `fall` (how far along it)."""
    kind, shape = person.traits["hair_type"], person.shape
    wave = {"straight": 0.15, "wavy": 2.6, "curly": 3.4}[kind]
    often = {"straight": 3.0, "wavy": 11.0, "curly": 24.0}[kind] * (1.0 + 0.1 * shape["wave"])
    phase = fall * often + lay("cloud", turn * 0.9, fall * 14.0) * (0.5 if kind == "straight" else 1.4)
    moved = turn + wave * np.sin(phase)
    fine = lay("strand", moved * 3.1, fall * 22.0)
    broad = lay("strand", moved * 0.9 + 31.0, fall * 9.0)
    tone = 1.0 + 0.20 * fine + 0.15 * broad
    if kind != "straight":
        tone += (0.16 if kind == "wavy" else 0.30) * np.sin(phase + 0.6)
    tint = hair_colour(person) * np.maximum(tone, 0.22)[:, None].astype(np.float32)
    bent = normal.copy()
    bent[:, 0] += 0.16 * fine + 0.18 * broad
    if kind != "straight":
        bent[:, 1] += (0.25 if kind == "wavy" else 0.42) * np.cos(phase)
    shine = {"straight": 0.50, "wavy": 0.36, "curly": 0.2}[kind]
    gloss = shine * np.clip(0.75 + 0.45 * fine, 0.0, 2.0)
    return tint, bent, gloss.astype(np.float32)


def paint_hat(paint: Paint, look: Look, head: Head) -> None:
    """A knitted cap or the crown of a brimmed hat, with its band."""
    if not look.has("hat"):
        return
    _, y, z = to_direction(paint.s, paint.t)
    over = over_hat_line(y, z, head.hat_line)
    at = np.flatnonzero(over > 0.008)
    if not at.size:
        return
    over = over[at]
    knitted = look.shape["hat_kind"] < 0.5
    base = hat_colour(look)
    if knitted:
        ribs = np.sin(np.arctan2(paint.s[at], 0.9) * 85.0)
        tone = 1.0 + 0.22 * ribs + 0.05 * lay("grain", paint.s[at] * 120, paint.t[at] * 120)
        tone *= 1.0 - 0.4 * np.exp(-(((over - 0.165) / 0.012) ** 2))
        paint.normal[at, 0] += 0.25 * ribs
    else:
        tone = 1.0 + 0.05 * lay("grain", paint.s[at] * 120, paint.t[at] * 120)
        tone = np.where(over < 0.11, np.float32(0.35), tone)
    paint.albedo[at] = base * tone[:, None]
    paint.label[at] = ID["hat"]
    paint.gloss[at], paint.soft[at] = 0.05, 0.0


def hat_colour(look: Look) -> Floats:
    names = ("8a2b2b", "2c4a7a", "37603f", "c9b48a", "3a3a40", "b9772e", "6a3f6e", "d0d0cc")
    return colour(names[int(look.shape["hat_hue"] * 7.99)])

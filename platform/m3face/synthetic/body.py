"""What is under the head: neck, shoulders, clothes, necklace, necktie, and hair that falls past the jaw.

Odd here: the body hardly turns, so it is one height field in view coordinates, a row's half width and depth
being functions of its height; only the neck's upper end follows the head. Long hair is a standing elliptic
tube round the neck with a gap for the face; a ray meets its front wall, or through the gap its back wall.
"""

from __future__ import annotations

import colorsys

import numpy as np

from m3face.faces import ID
from m3face.synthetic.canvas import Canvas, Indices
from m3face.synthetic.chart import Floats, lay, length_of, scale_rows, smooth
from m3face.synthetic.hair import strands_of
from m3face.synthetic.head import Head
from m3face.synthetic.people import Look, Person
from m3face.synthetic.plates import ball
from m3face.synthetic.skin import skin_colour


def _vivid(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32) ** np.float32(2.2)


def draw_body(canvas: Canvas, person: Person, look: Look, turn: Floats) -> None:
    """Neck and clothed shoulders."""
    male = person.traits["gender"] == "male"
    top = turn @ np.array([0.0, -0.62, -0.22], np.float32)
    neck = (0.43 if male else 0.345) + 0.02 * person.shape["neck"] + 0.045 * person.has("chubby")
    at = canvas.box(-9.0, 9.0, -9.0, float(top[1]))
    x, y = canvas.x[at], canvas.y[at]
    lean = smooth(-1.45, float(top[1]), y)
    away = x - float(top[0]) * lean - 0.05 * (look.shape["body_turn"] - 0.5)
    slope = -1.13 - (0.0 if male else 0.04)
    fall = np.maximum(slope - y, 0.0)
    wide = (
        neck
        + 0.05 * smooth(-0.8, -0.5, y)
        + 1.9 * np.power(fall, 1.6)
        + (1.35 if male else 1.05) * smooth(0.22, 0.85, fall)
    )
    ratio = np.abs(away) / wide
    keep = np.flatnonzero(ratio < 0.998)
    at = at[keep]
    y, away, ratio, lean, fall = y[keep], away[keep], ratio[keep], lean[keep], fall[keep]
    thick = 0.36 + 0.28 * smooth(0.0, 0.5, fall)
    round_ = np.sqrt(1.0 - ratio**2)
    depth = -0.24 + (float(top[2]) + 0.22) * lean + thick * round_
    keep = np.flatnonzero(depth + 0.07 > canvas.depth.take(at))  # not what the head hides whatever is worn
    at, depth, round_ = at.take(keep), depth.take(keep), round_.take(keep)
    y, away, ratio, fall = y.take(keep), away.take(keep), ratio.take(keep), fall.take(keep)
    upward = 0.16 + 0.75 * smooth(0.05, 0.4, fall) * (0.35 + 0.65 * ratio)
    normal = np.stack([np.sign(away) * ratio * np.float32(0.95), upward, round_ + 0.12], axis=1)
    length = length_of(normal)
    for axis in range(3):
        normal[:, axis] /= length
    base = skin_colour(person)
    albedo = np.tile(base * np.array([0.95, 0.90, 0.88], np.float32), (at.size, 1))
    # the neck's cords and the pit between the collar bones
    cord = (
        np.exp(-(((np.abs(away) - 0.10 - 0.35 * (y + 1.45)) / 0.035) ** 2))
        * smooth(-0.85, -1.1, y)
        * smooth(-1.5, -1.4, y)
    )
    pit = np.exp(-((away / 0.075) ** 2) - ((y + 1.45) / 0.06) ** 2)
    bone = np.exp(-(((y + 1.47 - 0.10 * np.abs(away)) / 0.035) ** 2)) * smooth(0.08, 0.2, np.abs(away))
    scale_rows(albedo, 1.0 + 0.07 * cord - 0.28 * pit - 0.10 * bone)
    if person.traits["age"] == "old":
        scale_rows(albedo, 1.0 - 0.10 * np.exp(-((np.sin((y + 0.02 * np.cos(away * 6)) * 28.0) - 1.0) ** 2) / 0.1))
    _dress(canvas, look, at, away, y, depth, normal.astype(np.float32), albedo)


def _dress(
    canvas: Canvas, look: Look, at: Indices, away: Floats, y: Floats,
    depth: Floats, normal: Floats, albedo: Floats,
) -> None:  # fmt: skip
    shape, tie = look.shape, look.has("necktie")
    side = np.abs(away)
    kind = shape["cloth_kind"]
    if tie:
        edge = -1.24 + 0.42 * np.maximum(side - 0.30, 0.0) - 0.40 * smooth(0.26, 0.0, side)
    elif kind < 0.4:  # a round neck
        edge = -1.47 + 0.55 * side * side + 0.10 * smooth(0.2, 0.5, side)
    elif kind < 0.7:  # a V
        edge = -1.64 + 0.72 * side
    else:  # a high collar
        edge = -1.30 + 0.04 * np.cos(side * 5.0)
    if look.has("necklace"):
        edge = np.minimum(edge, -1.52 + 0.35 * side)
    over = edge - y
    saturation = 0.12 + 0.5 * shape["cloth_light"] if not tie else 0.2
    cloth = _vivid(shape["cloth_hue"], saturation, 0.22 + 0.52 * (shape["cloth_hue"] * 7.3 % 1.0))
    folds = lay("cloud", away * 46.0 + 90 * shape["cloth_hue"], y * 22.0)
    weave = lay("grain", away * 190.0, y * 190.0)
    tone = 1.0 + 0.05 * weave + 0.07 * folds
    if shape["cloth_pattern"] < 0.2 and not tie:
        tone *= 1.0 - 0.45 * smooth(0.1, 0.5, np.sin(y * 48.0 + 0.4 * np.cos(away * 3)))
    worn = cloth * tone[:, None]
    bend = normal.copy()
    bend[:, 0] += 0.20 * folds
    bend[:, 1] += 0.08 * lay("cloud", y * 30.0, away * 30.0)
    lift = np.zeros_like(y)
    if tie:
        shirt = np.array([0.80, 0.80, 0.82], np.float32)
        jacket = _vivid(shape["cloth_hue"], 0.35, 0.16 + 0.2 * shape["cloth_light"])
        lapel = 0.30 + 0.0 * y - 0.42 * (-1.30 - y)
        is_shirt = side < lapel
        worn = np.where(is_shirt[:, None], shirt * (1.0 + 0.02 * weave[:, None]), jacket * tone[:, None])
        worn *= (1.0 - 0.55 * np.exp(-(((side - lapel) / 0.02) ** 2)))[:, None]
        flap = np.exp(-(((over - 0.17 + 0.25 * side) / 0.016) ** 2)) * is_shirt * (side < 0.36)
        worn *= (1.0 - 0.5 * flap)[:, None]
        colour_of = _vivid(shape["tie_hue"], 0.78, 0.55)
        knot = smooth(0.012, -0.012, side - (0.095 - 0.22 * np.maximum(-1.34 - y, 0.0))) * (y < -1.31) * (y > -1.48)
        blade = smooth(0.012, -0.012, side - (0.055 + 0.26 * np.maximum(-1.46 - y, 0.0))) * (y <= -1.46)
        strip = np.maximum(knot, blade)
        stripes = 1.0 - 0.5 * smooth(0.3, 0.6, np.sin((away + y) * 62.0)) * (shape["cloth_pattern"] > 0.4)
        drawn = colour_of * (stripes * (1.0 - 3.5 * side * side * 4))[:, None]
        worn = worn + (drawn - worn) * strip[:, None]
        over = np.where(strip > 0.5, np.maximum(over, 0.02), over)
        lift = 0.03 * strip
        bend[:, 0] += np.where(strip > 0.5, away * 6.0, 0.0)
    seam = 1.0 - 0.30 * np.exp(-(((over - 0.055) / 0.010) ** 2)) - 0.35 * np.exp(-((over / 0.014) ** 2)) * (over > 0)
    worn = worn * seam[:, None]
    on = over > 0
    shade = 1.0 - 0.35 * smooth(-0.07, 0.0, over) * ~on
    body, facing = np.empty((2, at.size, 3), np.float32)
    for channel in range(3):
        body[:, channel] = np.where(on, worn[:, channel], albedo[:, channel] * shade)
        facing[:, channel] = np.where(on, bend[:, channel], normal[:, channel])
    label = np.where(on, np.uint8(ID["cloth"]), np.uint8(ID["neck"]))
    canvas.put(
        at, (depth + np.where(on, 0.03 + lift, 0.0)).astype(np.float32), body, facing, label,
        gloss=np.where(on, 0.03, 0.12).astype(np.float32), soft=np.where(on, 0.0, 1.0).astype(np.float32),
    )  # fmt: skip


def draw_necklace(canvas: Canvas, look: Look) -> None:
    """Beads or a chain with a pendant, laid on whatever is there."""
    if not look.has("necklace"):
        return
    kind = look.shape["necklace_kind"]
    beads = kind < 0.5
    tint = np.array([0.86, 0.84, 0.80] if kind < 0.3 else [0.80, 0.52, 0.12], np.float32)
    if 0.3 <= kind < 0.5:
        tint = _vivid(look.shape["tie_hue"], 0.8, 0.6)
    radius = 0.034 if beads else 0.022
    count = 25 if beads else 43
    for place in np.linspace(-1.0, 1.0, count):
        x, y = 0.40 * place, -1.40 + 0.15 * place**2 + 0.10 * abs(place) ** 5
        ball(canvas, np.array([x, y, 0.44 - 0.12 * place**2], np.float32), radius, tint, ID["neck_l"], 1.0)
    if not beads:
        ball(canvas, np.array([0.0, -1.45, 0.46], np.float32), 0.062, tint, ID["neck_l"], 1.2)


def draw_curtain(canvas: Canvas, person: Person, look: Look, head: Head, turn: Floats) -> None:
    """Hair below the cap, for medium and long hair."""
    length = look.traits["hair_length"]
    if length not in ("medium", "long"):
        return
    volume = look.shape["volume"]
    full = {"straight": 0.0, "wavy": 0.04, "curly": 0.09}[person.traits["hair_type"]] + 0.06 * volume
    upper = 0.42
    end = (-0.86 - 0.14 * look.shape["length"]) if length == "medium" else (-1.48 - 0.30 * look.shape["length"])
    at = canvas.box(-1.35, 1.35, end - 0.25, upper)
    x, y = canvas.x[at], canvas.y[at]
    hang = turn @ np.array([0.0, -0.2, -0.08], np.float32)
    sway = float(hang[0]) - 0.35 * float(turn[0, 2]) * 0.3
    lean = float(turn[0, 1])
    away = x - sway - lean * np.clip(y, -0.9, 0.5)
    fall = np.clip((upper - y) / (upper - end), 0.0, 1.0)
    wide = head.half_width + 0.03 + 0.95 * head.hair.thick + full * fall + 0.05 * fall
    wide = wide - 0.11 * smooth(-0.55, -1.15, y) * (1.0 if length == "long" else 0.3)
    wide = wide * np.sqrt(np.clip(1.0 - np.maximum(y - 0.02, 0.0) ** 2 * 2.4, 0.05, 1.0))
    long_way = 0.86 + 0.1 * fall
    ratio = np.clip(np.abs(away) / wide, 0.0, 1.5)
    yaw = np.float32(np.arctan2(turn[0, 2], turn[2, 2]))
    keep = np.flatnonzero(ratio < 1.0)
    at, y, away, ratio = at[keep], y[keep], away[keep], ratio[keep]
    wide, long_way, fall = wide[keep], long_way[keep], fall[keep]
    round_ = np.sqrt(1.0 - ratio**2)
    for front in (True, False):
        sign = 1.0 if front else -1.0
        depth = (-0.12 + sign * (long_way * 0.8 * round_ + 0.05 * fall)).astype(np.float32)
        seen = depth > canvas.depth.take(at)
        if not front:
            seen &= y < 0.38
        pick = np.flatnonzero(seen)
        off, height, flat, broad = away.take(pick), y.take(pick), round_.take(pick), wide.take(pick)
        around = np.arctan2(off / broad, flat if front else -flat)
        angle = np.abs((around - yaw * 0.8 + np.pi) % (2 * np.pi) - np.pi)
        strand = lay("strand", around * 95.0, height * 14.0)
        locks = lay("cloud", around * 55.0 + 80.0, height * 12.0)
        gap = 0.90 + 0.05 * locks - 0.18 * smooth(-0.95, -1.35, height) - 0.10 * smooth(-0.1, 0.3, height)
        tip = height - end - 0.055 * strand - 0.05 * locks
        there = np.flatnonzero((angle > gap) & (tip > 0))
        if not there.size:
            continue
        pick = pick.take(there)
        off, height, flat, broad = (a.take(there) for a in (off, height, flat, broad))
        around, angle, gap, tip = (a.take(there) for a in (around, angle, gap, tip))
        normal = np.stack([off / broad, 0.10 + 0.0 * off, sign * flat], axis=1).astype(np.float32)
        normal[:, 2] = np.abs(normal[:, 2]) * (1.0 if front else 0.5)
        albedo, bent, gloss = strands_of(person, around * np.float32(40.0), (0.6 - height) * np.float32(1.0), normal)
        edge = 0.72 + 0.28 * smooth(0.0, 0.12, angle - gap)
        shade = (edge if front else 0.42 * np.ones_like(edge)) * (0.62 + 0.38 * smooth(0.0, 0.12, tip))
        scale_rows(albedo, shade)
        canvas.put(at.take(pick), depth.take(pick), albedo, bent, ID["hair"], gloss=gloss * edge)

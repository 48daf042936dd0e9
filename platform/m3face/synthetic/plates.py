"""Things fixed to the head that are no part of its relief: ears, glasses, earrings, the brim of a hat.

Odd here: ears, lenses and brims are carved *plates*: an orthographic camera maps a plane to the picture
affinely, so each pixel finds its place on the plate by one 2 x 2 inverse, and relief is shading plus a
depth offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m3face.faces import ID
from m3face.synthetic.canvas import Canvas, Indices
from m3face.synthetic.chart import Floats, lay, sample, smooth
from m3face.synthetic.hair import hat_colour
from m3face.synthetic.head import Head
from m3face.synthetic.people import Look, Person
from m3face.synthetic.skin import skin_colour


@dataclass(frozen=True)
class Plate:
    """A plane piece: `middle` and the unit axes `along` u and `across` v, in view coordinates."""

    middle: Floats
    along: Floats
    across: Floats

    @property
    def face(self) -> Floats:
        cross: Floats = np.empty(3, np.float32)
        cross[:] = np.cross(self.along, self.across)
        cross *= np.copysign(1.0, cross[2])
        return cross

    def pixels(self, canvas: Canvas, reach_u: float, reach_v: float) -> tuple[Indices, Floats, Floats, Floats]:
        """Pixels that may see the plate, their u and v and the plane's depth."""
        wide = reach_u * abs(float(self.along[0])) + reach_v * abs(float(self.across[0]))
        high = reach_u * abs(float(self.along[1])) + reach_v * abs(float(self.across[1]))
        mx, my = float(self.middle[0]), float(self.middle[1])
        at = canvas.box(mx - wide, mx + wide, my - high, my + high)
        x, y = canvas.x[at] - mx, canvas.y[at] - my
        a, b, c, d = self.along[0], self.across[0], self.along[1], self.across[1]
        whole = a * d - b * c
        whole = whole if abs(whole) > 0.02 else np.float32(0.02)
        u, v = (d * x - b * y) / whole, (a * y - c * x) / whole
        return at, u, v, self.middle[2] + u * self.along[2] + v * self.across[2]


def _unit(vector: Floats) -> Floats:
    out: Floats = (vector / np.sqrt((vector * vector).sum())).astype(np.float32)
    return out


def side_point(head: Head, angle: float, height: float) -> Floats:
    """The head's surface at `angle` degrees from the front at a height, head coordinates, on the person's left."""
    flat = np.radians(angle)
    direction = np.array([np.sin(flat), height, np.cos(flat)])
    direction /= np.linalg.norm(direction)
    bend = np.sqrt(2.0 / (1.0 + direction[2]))
    s, t = np.array([direction[0] * bend], np.float32), np.array([direction[1] * bend], np.float32)
    values = sample(head.stack, s, t)[0]
    out: Floats = (direction * (values[0] - values[4])).astype(np.float32)
    return out


def draw_ears(canvas: Canvas, person: Person, head: Head, turn: Floats) -> None:
    """Two ears with rim, inner fold, hollow and lobe."""
    size = 0.225 * (1.0 + 0.1 * person.shape["ear_size"]) * (1.08 if person.traits["age"] == "old" else 1.0)
    flare = np.radians(33.0 + 6.0 * person.shape["ear_flare"])
    base = skin_colour(person)
    for side, name in ((-1.0, "r_ear"), (1.0, "l_ear")):
        root = side_point(head, 94.0, -0.06) * np.array([side, 1.0, 1.0], np.float32)
        back = np.array([side * np.sin(flare), 0.10, -np.cos(flare)], np.float32)
        up = _unit(np.array([side * 0.10, 1.0, -0.16], np.float32))
        back = _unit(back - up * float(back @ up))
        middle = root + back * np.float32(0.075) + np.array([side * 0.005, 0, 0.03], np.float32)
        plate = Plate(turn @ middle, (turn @ back).astype(np.float32), (turn @ up).astype(np.float32))
        at, u, v, depth = plate.pixels(canvas, 0.2, 0.3)
        if not at.size:
            continue
        # outline: an egg that is widest above, with a lobe below
        high = v / size
        wide = 0.135 * (1.0 - 0.28 * smooth(0.1, -0.95, high)) * np.sqrt(np.maximum(1.0 - high * high, 0.0))
        lean = 0.012 * high
        inside = (np.abs(u - lean) < wide) & (np.abs(high) < 1.0)
        keep = np.flatnonzero(inside)
        if not keep.size:
            continue
        at, u, high, depth, wide, lean = at[keep], u[keep], high[keep], depth[keep], wide[keep], lean[keep]
        across = np.clip((u - lean) / np.maximum(wide, 1e-3), -1.0, 1.0)
        far = np.sqrt(across**2 + np.abs(high) ** 2.4 * 0.6)
        lobe = smooth(-0.45, -0.7, high)
        rim = np.exp(-(((np.sqrt(across**2 + high**2 * 0.85) - 0.86) / 0.13) ** 2)) * (1.0 - 0.7 * lobe)
        fold = np.exp(-(((np.hypot(across + 0.15, high * 0.9 + 0.05) - 0.52) / 0.11) ** 2)) * smooth(-0.6, 0.0, across)
        bowl = np.exp(-(((across + 0.22) / 0.34) ** 2) - ((high + 0.12) / 0.30) ** 2)
        groove = np.exp(-(((np.hypot(across, high * 0.9) - 0.69) / 0.07) ** 2)) * (1.0 - lobe)
        hollow = np.clip(0.60 * bowl + 0.36 * groove - 0.15 * rim, 0.0, 0.85)
        ruddy = base * np.array([1.0, 0.80, 0.76], np.float32)
        albedo = ruddy * (1.0 - hollow)[:, None] + base * np.array([0.3, 0.14, 0.12], np.float32) * hollow[:, None]
        face = plate.face
        normal = np.tile(face, (at.size, 1)).astype(np.float32)
        bend = (rim * (far - 0.8) * 3.0 + fold * 0.3 - 0.5 * bowl * across)[:, None]
        normal += plate.along * (bend * np.sign(across)[:, None]) + plate.across * (0.4 * rim * np.sign(high))[:, None]
        normal /= np.sqrt((normal**2).sum(1, keepdims=True))
        canvas.put(
            at, depth + 0.03 * rim - 0.03 * bowl, albedo.astype(np.float32), normal, ID[name], gloss=0.16, soft=1.0
        )


def ball(canvas: Canvas, middle: Floats, radius: float, tint: Floats, label: int, gloss: float) -> None:
    """A shaded sphere."""
    x, y, z = (float(c) for c in middle)
    at = canvas.box(x - radius, x + radius, y - radius, y + radius)
    dx, dy = (canvas.x[at] - x) / radius, (canvas.y[at] - y) / radius
    flat = dx * dx + dy * dy
    keep = np.flatnonzero(flat < 1.0)
    if keep.size:
        up = np.sqrt(1.0 - flat[keep])
        normal = np.stack([dx[keep], dy[keep], up], axis=1).astype(np.float32)
        canvas.put(at[keep], (z + radius * up).astype(np.float32), tint, normal, label, gloss=gloss)


def rod(
    canvas: Canvas, a: Floats, b: Floats, radius: float, tint: Floats, label: int, gloss: float, lift: float = 0.0
) -> None:
    """A straight round bar between two view points."""
    low, high = np.minimum(a, b) - radius, np.maximum(a, b) + radius
    at = canvas.box(float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    along = b - a
    length = max(float(along[0] ** 2 + along[1] ** 2), 1e-6)
    dx, dy = canvas.x[at] - a[0], canvas.y[at] - a[1]
    share = np.clip((dx * along[0] + dy * along[1]) / length, 0.0, 1.0)
    ox, oy = dx - share * along[0], dy - share * along[1]
    flat = (ox * ox + oy * oy) / radius**2
    keep = np.flatnonzero(flat < 1.0)
    if keep.size:
        up = np.sqrt(1.0 - flat[keep])
        normal = np.stack([ox[keep] / radius, oy[keep] / radius, up], axis=1).astype(np.float32)
        depth = a[2] + share[keep] * along[2] + radius * up + lift
        canvas.put(at[keep], depth.astype(np.float32), tint, normal, label, gloss=gloss)


def draw_earrings(canvas: Canvas, look: Look, head: Head, turn: Floats) -> None:
    """Pearls, drops or hoops under the lobes; they hang in front of any hair."""
    if not look.has("earrings"):
        return
    kind, label = look.shape["earring_kind"], ID["ear_r"]
    gold = np.array([0.88, 0.60, 0.16], np.float32)
    tint = np.array([0.85, 0.83, 0.80], np.float32) if kind < 0.3 else gold
    for side in (-1.0, 1.0):
        place = side_point(head, 90.0, -0.30) * np.array([side, 1.0, 1.0], np.float32)
        place = place + np.array([side * 0.085, -0.02, 0.06], np.float32)
        view = (turn @ place).astype(np.float32)
        if look.traits["hair_length"] in ("medium", "long"):
            view[2] += 0.25
        if kind < 0.36:
            ball(canvas, view, 0.058, tint, label, 1.2)
        elif kind < 0.68:
            rod(canvas, view, view - np.array([0, 0.12, 0], np.float32), 0.018, gold, label, 1.2)
            ball(canvas, view - np.array([0, 0.16, 0], np.float32), 0.055, tint, label, 1.2)
        else:
            rounds = np.linspace(0.0, 2 * np.pi, 15)
            ring = [
                view + np.array([0.075 * np.sin(a), -0.085 + 0.09 * np.cos(a), 0.03 * np.sin(a)], np.float32)
                for a in rounds
            ]
            for a, b in zip(ring, ring[1:], strict=False):
                rod(canvas, a.astype(np.float32), b.astype(np.float32), 0.021, gold, label, 1.2)


def draw_brim(canvas: Canvas, look: Look, head: Head, turn: Floats) -> None:
    """A flat ring round the crown (a brimmed hat), or a peak in front (a cap)."""
    if not look.has("hat") or look.shape["hat_kind"] < 0.5:
        return
    peak = look.shape["hat_kind"] > 0.75
    line = head.hat_line + 0.02
    if peak:
        middle, tilt = np.array([0.0, line + 0.17, 0.55], np.float32), -0.34
    else:
        middle, tilt = np.array([0.0, line + 0.12, 0.0], np.float32), -0.07
    side = np.array([1.0, 0.0, 0.0], np.float32)
    front = _unit(np.array([0.0, tilt, 1.0], np.float32))
    plate = Plate(
        (turn @ middle).astype(np.float32), (turn @ side).astype(np.float32), (turn @ front).astype(np.float32)
    )
    at, u, v, depth = plate.pixels(canvas, 1.25, 1.5)
    if not at.size:
        return
    if peak:
        keep = np.flatnonzero((v > 0.0) & ((u / 0.64) ** 2 + (v / 0.62) ** 2 < 1.0))
    else:
        keep = np.flatnonzero((u / 1.18) ** 2 + (v / 1.24) ** 2 < 1.0)
    if keep.size:
        grain = 1.0 + 0.05 * lay("grain", u[keep] * 90, v[keep] * 90)
        droop = np.stack(
            [u[keep] * 0.3, np.full(keep.size, 0.75, np.float32), np.full(keep.size, 0.6, np.float32)], axis=1
        )
        canvas.put(
            at[keep],
            depth[keep],
            hat_colour(look) * (0.9 * grain)[:, None],
            droop.astype(np.float32),
            ID["hat"],
            gloss=0.05,
        )


def draw_glasses(canvas: Canvas, look: Look, head: Head, turn: Floats) -> list[tuple[Indices, Floats, Floats]]:
    """Frame and temples by depth; returns, per lens, its pixels, depth and place (u, v), for the glass itself."""
    kind = look.traits["glasses"]
    if kind == "none":
        return []
    dark = kind == "sunglasses"
    shape = look.shape
    names = ((0.02, 0.02, 0.025), (0.16, 0.06, 0.03), (0.42, 0.30, 0.12), (0.10, 0.12, 0.30), (0.30, 0.03, 0.04))
    tint = np.array(names[int(shape["glasses_hue"] * 4.99)], np.float32)
    eye = head.features.eye
    at_eye = head.points(*_row(eye.s, eye.t), sample(head.stack, *_row(eye.s, eye.t))[:, 0])
    wide, high = (0.255, 0.2) if dark else (0.232, 0.165)
    high *= 0.9 + 0.25 * shape["glasses_kind"]
    power = 2.3 if shape["glasses_kind"] > 0.55 else 4.0
    thick = 0.030 if not dark else 0.034
    front = float(at_eye[2][0]) + 0.17
    height = float(at_eye[1][0]) - 0.012
    lenses = []
    for side in (-1.0, 1.0):
        middle = turn @ np.array([side * 0.285, height, front], np.float32)
        along = turn @ np.array([0.975 * side, 0.0, -0.22], np.float32)
        across = turn @ np.array([0.0, 1.0, 0.06], np.float32)
        plate = Plate(middle.astype(np.float32), along.astype(np.float32), across.astype(np.float32))
        at, u, v, depth = plate.pixels(canvas, wide + thick, high + thick)
        uu, vv = np.abs(u) / wide, np.abs(v - 0.03 * u * 0.5) / high
        far = np.power(np.power(uu, power) + np.power(vv, power), 1.0 / power)
        rim = np.flatnonzero((far > 1.0 - 0.5 * thick / high) & (far < 1.0 + 0.75 * thick / high))
        normal = (
            np.tile(plate.face, (rim.size, 1))
            + plate.across * (0.8 * np.sign(v[rim]) * (far[rim] - 1.0) * 6.0)[:, None]
        )
        canvas.put(at[rim], depth[rim] + 0.012, tint, normal.astype(np.float32), ID["eye_g"], gloss=0.9)
        inside = np.flatnonzero(far <= 1.0 - 0.5 * thick / high)
        lenses.append((at[inside], depth[inside], np.stack([u[inside] * side / wide, v[inside] / high], axis=1)))
        hinge = (middle + along * (wide + 0.01) + across * (high * 0.45)).astype(np.float32)
        ear = (
            turn @ (side_point(head, 88.0, 0.10) * np.array([side, 1.0, 1.0]) + np.array([side * 0.03, 0, 0]))
        ).astype(np.float32)
        rod(canvas, hinge, ear, 0.021, tint, ID["eye_g"], 0.8)
        inner = (middle - along * wide + across * (high * 0.25)).astype(np.float32)
        nose = (turn @ np.array([0.0, height + high * 0.33, front + 0.05], np.float32)).astype(np.float32)
        rod(canvas, inner, nose, 0.018, tint, ID["eye_g"], 0.8)
    return lenses


def _row(s: float, t: float) -> tuple[Floats, Floats]:
    return np.array([s], np.float32), np.array([t], np.float32)


def glint(place: Floats) -> Floats:
    """The reflection on a lens: two slanted bands."""
    slant = place[:, 0] * 0.8 + place[:, 1]
    bands = np.exp(-(((slant - 0.5) / 0.16) ** 2)) + 0.6 * np.exp(-(((slant - 0.95) / 0.08) ** 2))
    out: Floats = bands.astype(np.float32)
    return out

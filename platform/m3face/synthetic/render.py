"""A person and a look, rendered: picture, label map and landmarks from one depth buffer.

Odd here: lighting is deferred. Everything is first drawn into buffers, then one pass lights it: wrapped
diffuse (red reaches furthest, as in skin), highlights, and soft shadows found by walking the small depth
picture towards the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3face.errors import BadInput
from m3face.faces import ID
from m3face.synthetic.body import draw_body, draw_curtain, draw_necklace
from m3face.synthetic.canvas import FRAME, Canvas, Indices, put_rows, rotation, trace
from m3face.synthetic.chart import Floats, length_of, sample
from m3face.synthetic.features import features_of, landmark_points
from m3face.synthetic.hair import paint_beard, paint_hair, paint_hat
from m3face.synthetic.head import Head, build_head
from m3face.synthetic.lighting import background, light, to_bytes
from m3face.synthetic.people import Look, Person, attributes_of, sample_look, sample_person
from m3face.synthetic.plates import draw_brim, draw_earrings, draw_ears, draw_glasses, glint
from m3face.synthetic.skin import (
    Paint,
    paint_brows,
    paint_eyes,
    paint_mouth,
    paint_nose,
    paint_skin,
)

SIZES = (64, 512)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled picture. `landmarks` are pixels with centres at +0.5; `yaw` turns to the picture's right."""

    image: NDArray[np.uint8]
    label_map: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    visible: NDArray[np.bool_]
    attributes: dict[str, str]
    identity: str
    yaw: float
    pitch: float
    person: Person
    look: Look


def _draw_head(canvas: Canvas, person: Person, look: Look, head: Head, turn: Floats) -> None:
    around = canvas.box(-1.3, 1.3, -1.4, 1.32)
    x, y = canvas.x[around], canvas.y[around]
    near = np.flatnonzero(x * x + (y * 0.95) ** 2 < 1.68)
    hit, depth, s, t, outward = trace(head.stack, (x[near], y[near]), turn)
    at = around[near[hit]]
    count = at.size
    paint = Paint(
        s=s, t=t,
        albedo=np.zeros((count, 3), np.float32),
        normal=outward,
        gloss=np.zeros(count, np.float32), soft=np.zeros(count, np.float32),
        label=np.full(count, ID["skin"], np.uint8),
        grain=0.55 * canvas.step,
    )  # fmt: skip
    features = head.features
    paint_skin(paint, person, look, features)
    paint_nose(paint, person, features)
    paint_beard(paint, person, look, features)
    paint_mouth(paint, person, look, features)
    paint_eyes(paint, person, look, features, turn)
    paint_brows(paint, person, features)
    paint_hair(paint, person, head)
    paint_hat(paint, look, head)
    normal = paint.normal @ turn.T
    normal /= length_of(normal)[:, None] + 1e-6
    canvas.put(at, depth, paint.albedo, normal, paint.label, gloss=paint.gloss, soft=paint.soft)


def _landmarks(
    canvas: Canvas, head: Head, turn: Floats, size: int, *, dark: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    s, t = landmark_points(head.features)
    values = sample(head.stack, s, t)
    x, y, z = head.points(s, t, values[:, 0] - values[:, 4])
    view = np.stack([x, y, z], axis=1) @ turn.T
    across, down = canvas.to_pixels(view[:, 0], view[:, 1], size)
    scale = canvas.count / size
    column = np.clip((across * scale).astype(np.int32), 0, canvas.count - 1)
    row = np.clip((down * scale).astype(np.int32), 0, canvas.count - 1)
    at = row * canvas.count + column
    over = canvas.depth[at] - view[:, 2]
    label = canvas.label[at]
    visible = over < np.where(label == ID["eye_g"], 0.01, 0.07)
    visible &= (label != ID["hair"]) & (label != ID["hat"])
    if dark:
        visible &= label != ID["eye_g"]
    visible &= (across >= 0) & (across < size) & (down >= 0) & (down < size)
    return np.stack([across, down], axis=1).astype(np.float32), visible


def _majority(labels: NDArray[np.uint8], size: int, factor: int) -> NDArray[np.uint8]:
    """The label most of a pixel's samples have (the first such, in reading order)."""
    if factor == 1:
        return labels.reshape(size, size)
    parts = labels.reshape(size, factor, size, factor).transpose(1, 3, 0, 2).reshape(factor * factor, size, size)
    votes = [sum((part == other).astype(np.uint8) for other in parts) for part in parts]
    best: NDArray[np.uint8] = parts[0].copy()
    most = np.asarray(votes[0])
    for part, vote in zip(parts[1:], votes[1:], strict=True):
        better = np.asarray(vote) > most
        best[better], most = part[better], np.maximum(most, np.asarray(vote))
    return best


def _glass(canvas: Canvas, lit: Floats, look: Look, lenses: list[tuple[Indices, Floats, Floats]]) -> None:
    """Lay the lenses over the lit picture; eyes and brows stay labelled behind clear glass."""
    keep = [ID[name] for name in ("l_eye", "r_eye", "l_brow", "r_brow", "hair", "hat")]
    dark = look.traits["glasses"] == "sunglasses"
    for at, depth, place in lenses:
        near = np.flatnonzero(
            (depth > canvas.depth[at]) | (canvas.label[at] != ID["hat"]) & (depth > canvas.depth[at] - 0.12)
        )
        at, place = at[near], place[near]
        shine = glint(place)[:, None]
        if dark:
            tint = np.array([0.035, 0.032, 0.04], np.float32)
            lit[at] = lit[at] * np.float32(0.045) + tint * (1.0 + 0.9 * place[:, 1:2]) + 0.10 * shine
            canvas.label[at] = ID["eye_g"]
            canvas.depth[at] = np.maximum(canvas.depth[at], depth[near])
        else:
            lit[at] = lit[at] * np.float32(0.93) + 0.16 * shine
            free = at[~np.isin(canvas.label[at], keep)]
            canvas.label[free] = ID["eye_g"]


def render(person: Person, look: Look, *, size: int) -> Sample:
    """The picture of `person` in `look`, `size` pixels a side (64 to 512)."""
    if not SIZES[0] <= size <= SIZES[1]:
        raise BadInput("size", f"is {size}", f"{SIZES[0]} to {SIZES[1]} pixels", "render at 512 and resize")
    factor = 2
    shape = look.shape
    frame = FRAME * (1.03 - 0.07 * shape["scale"])
    centre = (0.10 * (shape["offset_x"] - 0.5), -0.20 + 0.08 * (shape["offset_y"] - 0.5))
    canvas = Canvas(size * factor, centre=centre, frame=frame)
    turn = rotation(look.yaw, look.pitch, look.roll)
    head = build_head(person, look, features_of(person, look))
    _draw_head(canvas, person, look, head, turn)
    draw_ears(canvas, person, head, turn)
    draw_body(canvas, person, look, turn)
    draw_curtain(canvas, person, look, head, turn)
    draw_necklace(canvas, look)
    draw_earrings(canvas, look, head, turn)
    draw_brim(canvas, look, head, turn)
    lenses = draw_glasses(canvas, look, head, turn)
    lit = light(canvas, look)
    _glass(canvas, lit, look, lenses)
    landmarks, visible = _landmarks(canvas, head, turn, size, dark=look.traits["glasses"] == "sunglasses")
    empty = np.flatnonzero(canvas.depth < -8.0)
    put_rows(lit, empty, background(canvas, look, empty))
    return Sample(
        image=to_bytes(lit, size, factor),
        label_map=_majority(canvas.label, size, factor),
        landmarks=landmarks,
        visible=visible,
        attributes=attributes_of(person, look),
        identity=person.identity,
        yaw=look.yaw,
        pitch=look.pitch,
        person=person,
        look=look,
    )


def make_sample(seed: int, index: int, *, size: int, variant: int = 0) -> Sample:
    """Sample `index` of the endless set `seed`; another `variant` is another picture of the same person."""
    person = sample_person(np.random.default_rng([seed, index]))
    look = sample_look(np.random.default_rng([seed, index, variant, 1]), person)
    return render(person, look, size=size)

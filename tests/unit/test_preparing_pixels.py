"""Between archive and shard, the pixels: alignment, cropping, what is set aside, copies, splits."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from m3face.config.dataset import AlignConfig, FilterConfig, SplitConfig
from m3face.data.aligning import Similarity, crop_transform, eyes_and_mouth, fit, warp_map, warp_picture
from m3face.data.filtering import HASH, difference_hash, inspect, judge, pixel_hash, set_aside_copies
from m3face.data.rows import Row, Step
from m3face.data.splitting import split, split_of
from m3face.errors import BadInput
from m3face.faces import resize_landmarks, resize_map
from m3face.synthetic import Sample, make_sample

SIZE = 128


@pytest.fixture(scope="module")
def face() -> Sample:
    return make_sample(0, 3, size=SIZE)


@pytest.fixture(scope="module")
def faces() -> list[Sample]:
    return [make_sample(5, index, size=64) for index in range(12)]


def row_of(sample: Sample, id: str = "a") -> Row:
    return Row(id=id, image=sample.image, label_map=sample.label_map, landmarks=sample.landmarks)


def turned(degrees: float, zoom: float, *, middle: tuple[float, float]) -> Similarity:
    """About the picture's middle, which goes to `middle`."""
    cos, sin = np.cos(np.deg2rad(degrees)) * zoom, np.sin(np.deg2rad(degrees)) * zoom
    matrix = np.array([[cos, -sin], [sin, cos]])
    return Similarity(matrix, np.array(middle) - matrix @ np.array([SIZE / 2, SIZE / 2]))


def one(step: Step, row: Row) -> Row:
    (done,) = step([row])
    return done


def eyes_mouth(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = eyes_and_mouth(row_of(sample))
    assert found is not None
    return found


def points(row: Row) -> NDArray[np.float64]:
    assert row.landmarks is not None
    return row.landmarks.astype(np.float64)


def aligned(row: Row, size: int = SIZE) -> Row:
    done = one(fit(AlignConfig(on=True, size=size)), row)
    assert done.error is None
    assert done.image is not None
    assert done.image.shape == (size, size, 3)
    return done


# -- alignment


def test_the_rule_by_hand() -> None:
    """Eyes 20 apart and 30 above the mouth: half a side is 54, and the middle lies 3 below the eyes."""
    transform = crop_transform(np.array([[90.0, 100], [110, 100]]), np.array([[95.0, 130], [105, 130]]), size=216)
    assert transform.scale == pytest.approx(2)
    assert transform(np.array([[100.0, 103], [90, 100], [100, 130]])) == pytest.approx(
        np.array([[108.0, 108], [88, 102], [108, 162]])
    )


@pytest.mark.parametrize(("degrees", "zoom"), [(0, 1.0), (25, 1.7), (-70, 0.8), (180, 1.0), (8, 3.0)])
def test_a_turned_and_zoomed_face_comes_back_to_the_same_place(face: Sample, degrees: float, zoom: float) -> None:
    side = int(SIZE * zoom * 1.6)
    there = turned(degrees, zoom, middle=(side * 0.52, side * 0.49))
    moved = Row(
        id="a",
        image=warp_picture(face.image, there, size=side),
        label_map=warp_map(face.label_map, there, size=side),
        landmarks=there(face.landmarks).astype(np.float32),
    )
    home, back = aligned(row_of(face)), aligned(moved)
    assert np.abs(points(back) - points(home)).max() < 1e-3
    inner = slice(SIZE // 4, -SIZE // 4)
    assert home.image is not None and back.image is not None and home.label_map is not None
    differ = np.abs(home.image[inner, inner].astype(int) - back.image[inner, inner]).mean()
    assert differ < (12 if zoom < 1 else 6)
    assert back.label_map is not None
    assert set(np.unique(back.label_map)) <= {0, *np.unique(face.label_map)}
    assert (back.label_map[inner, inner] == home.label_map[inner, inner]).mean() > (0.9 if zoom < 1 else 0.97)


def test_map_picture_and_points_stay_together(face: Sample) -> None:
    """A picture that shows its own map, and a map of rectangles around the points: the crop says the same."""
    picture = np.repeat(face.label_map[..., None] * np.uint8(12), 3, axis=2)
    marks = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for x, y in face.landmarks:
        marks[max(0, int(y) - 1) : int(y) + 2, max(0, int(x) - 1) : int(x) + 2] = 1
    done = aligned(Row(id="a", image=picture, label_map=face.label_map, landmarks=face.landmarks), size=256)
    assert done.image is not None and done.label_map is not None
    inner = done.label_map[4:-4, 4:-4]
    windows = np.lib.stride_tricks.sliding_window_view(done.label_map, (9, 9))
    away = (windows == inner[..., None, None]).all((2, 3))  # from the borders of parts, where the picture is smooth
    assert away.mean() > 0.5
    assert np.abs(done.image[4:-4, 4:-4, 0].astype(int) - 12 * inner.astype(int))[away].max() <= 2
    crop = warp_map(marks, crop_transform(*eyes_mouth(face), size=256), size=256)
    inside = [(x, y) for x, y in points(done) if 0 <= x < 256 and 0 <= y < 256]
    assert len(inside) > 50
    assert all(crop[int(y), int(x)] for x, y in inside)


def test_a_warp_by_nothing_changes_nothing(face: Sample) -> None:
    same = Similarity(np.eye(2), np.zeros(2))
    assert np.array_equal(warp_picture(face.image, same, size=SIZE), face.image)
    assert np.array_equal(warp_map(face.label_map, same, size=SIZE), face.label_map)
    quarter = Similarity(np.array([[0.0, -1], [1, 0]]), np.array([SIZE, 0.0]))
    assert np.array_equal(warp_picture(face.image, quarter, size=SIZE), np.rot90(face.image, -1))
    assert np.array_equal(warp_map(face.label_map, quarter, size=SIZE), np.rot90(face.label_map, -1))


def test_shrinking_keeps_no_moire() -> None:
    """Stripes one pixel wide become grey; without a filter before shrinking they would become other stripes."""
    stripes = np.zeros((300, 300, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = warp_picture(stripes, Similarity(np.eye(2) / 3.7, np.zeros(2)), size=81)
    assert small[8:-8, 8:-8].std() < 3
    assert small[8:-8, 8:-8].mean() == pytest.approx(127.5, abs=2)


def test_outside_is_a_mirror_image_and_no_part_of_a_face(face: Sample) -> None:
    left = Similarity(np.eye(2), np.array([40.0, 0]))
    picture, parts = warp_picture(face.image, left, size=SIZE), warp_map(face.label_map, left, size=SIZE)
    assert np.array_equal(picture[:, :40], face.image[:, 39::-1])
    assert np.array_equal(picture[:, 40:], face.image[:, :-40])
    assert not parts[:, :40].any()


def test_five_points_are_enough(face: Sample) -> None:
    eyes, mouth = eyes_mouth(face)
    five = np.stack([*eyes, face.landmarks[30], *mouth])
    by_five = aligned(Row(id="a", image=face.image, notes={"five_points": five}))
    assert by_five.landmarks is None
    home = aligned(row_of(face))
    assert np.array_equal(by_five.image, home.image)  # type: ignore[arg-type]
    assert by_five.notes["five_points"][2] == pytest.approx(points(home)[30], abs=1e-3)


def test_a_huge_crop_takes_no_huge_memory() -> None:
    """A face larger than its picture: the window is made at the crop's scale, not at the picture's."""
    picture = np.full((2000, 2000, 3), 77, dtype=np.uint8)
    small = warp_picture(picture, Similarity(np.eye(2) * 64 / 7900, np.full(2, 24.0)), size=64)
    assert (small == 77).all()


@pytest.mark.parametrize(
    ("landmarks", "named"),
    [
        (None, "landmarks: are not known"),
        (np.zeros((68, 2)), "landmarks: show eyes and mouth in one place"),
        (np.random.default_rng(0).uniform(0, 60, (68, 2)) + 5000, "landmarks: show a face of"),
    ],
)
def test_what_cannot_be_aligned_is_named(face: Sample, landmarks: NDArray[np.float64] | None, named: str) -> None:
    points = None if landmarks is None else landmarks.astype(np.float32)
    done = one(fit(AlignConfig(on=True, size=SIZE)), Row(id="a", image=face.image, landmarks=points))
    assert done.error is not None
    assert done.error.startswith(named)


# -- without alignment


def test_a_square_picture_of_the_right_size_is_untouched(face: Sample) -> None:
    done = one(fit(AlignConfig(size=SIZE)), row_of(face))
    assert np.array_equal(done.image, face.image)  # type: ignore[arg-type]
    assert np.array_equal(done.label_map, face.label_map)  # type: ignore[arg-type]
    assert np.array_equal(points(done), face.landmarks)


def test_a_tall_picture_is_cut_to_its_middle_and_resized(face: Sample) -> None:
    tall = row_of(face)
    assert tall.image is not None and tall.label_map is not None and tall.landmarks is not None
    above, below = 20, 30  # the middle square begins 25 rows down, 5 rows into the face
    tall.image = np.pad(tall.image, ((above, below), (0, 0), (0, 0)))
    tall.label_map = np.pad(tall.label_map, ((above, below), (0, 0)))
    tall.landmarks = tall.landmarks + np.array([0, above], dtype=np.float32)
    cut = tall.image[25 : 25 + SIZE], tall.label_map[25 : 25 + SIZE]
    done = one(fit(AlignConfig(size=64)), tall)
    expected = np.asarray(Image.fromarray(cut[0]).resize((64, 64), Image.Resampling.LANCZOS))
    assert np.array_equal(done.image, expected)  # type: ignore[arg-type]
    assert np.array_equal(done.label_map, resize_map(cut[1], 64))  # type: ignore[arg-type]
    shifted = face.landmarks - np.array([0, 5], dtype=np.float32)
    assert points(done) == pytest.approx(resize_landmarks(shifted, old=SIZE, new=64))


def test_a_map_of_another_size_and_wild_points_are_named(face: Sample) -> None:
    step = fit(AlignConfig(size=SIZE))
    other = Row(id="a", image=face.image, label_map=face.label_map[:64, :64])
    assert one(step, other).error == "label_map: is 64 x 64 pixels; allowed: 128 x 128, as the picture"
    wild = Row(id="b", image=face.image, landmarks=face.landmarks + 1000)
    assert (one(step, wild).error or "").startswith("landmarks: point 0 is at (")


def test_rows_are_fitted_once_and_bad_ones_left_alone(face: Sample) -> None:
    waiting, later = fit(AlignConfig(on=True, size=SIZE), waiting=True), fit(AlignConfig(on=True, size=SIZE))
    no_points, bad = Row(id="a", image=face.image), Row(id="b", image=face.image, error="no")
    ready = one(waiting, row_of(face))
    again = one(later, ready)
    assert again is ready
    kept = ready.image
    waiting([no_points, bad])
    assert no_points.image is face.image
    assert bad.image is face.image
    assert bad.error == "no"
    no_points.landmarks = face.landmarks
    assert np.array_equal(one(later, no_points).image, kept)  # type: ignore[arg-type]


# -- what is set aside


def test_small_huge_and_blurred_pictures_are_named(face: Sample) -> None:
    config = FilterConfig(min_side=100, max_pixels=20_000, min_sharpness=1.0)
    rows = [Row(id=str(n), image=np.zeros((h, w, 3), np.uint8)) for n, (h, w) in enumerate([(99, 150), (150, 150)])]
    good = row_of(face)
    errors = [row.error for row in inspect(config)([*rows, good])]
    assert errors[:2] == [
        "image: is 150 x 99 pixels; allowed: at least 100 a side (data.filter.min_side)",
        "image: is 150 x 150 pixels; allowed: at most 20,000 in all (data.filter.max_pixels)",
    ]
    assert errors[2] is None
    blurred = Row(id="c", image=np.full((SIZE, SIZE, 3), 90, np.uint8))
    first, second = judge(config)([good, blurred])
    assert first.error is None
    assert first.notes["sharpness"] > 1
    assert second.error == ("image: has a Laplacian energy of 0.0; allowed: at least 1 (data.filter.min_sharpness)")


def test_a_map_of_nothing_is_named(face: Sample) -> None:
    row = Row(id="a", image=face.image, label_map=np.zeros((SIZE, SIZE), np.uint8))
    assert (one(judge(FilterConfig()), row).error or "").startswith("label_map: is background everywhere")


# -- copies


def saved(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def hashes(pictures: Sequence[NDArray[np.uint8]], mode: str) -> list[str | None]:
    config = FilterConfig.model_validate({"duplicates": mode})
    rows = inspect(config)([Row(id=str(n), image=picture) for n, picture in enumerate(pictures)])
    return [row.notes.get(HASH) for row in rows]


def test_exact_copies(faces: list[Sample]) -> None:
    pictures = [face.image for face in faces[:4]]
    changed = pictures[1].copy()
    changed[0, 0, 0] ^= 1
    found = hashes([*pictures, pictures[2].copy(), changed, pictures[2]], "exact")
    assert set_aside_copies(found, "exact") == {4: 2, 6: 2}
    assert pixel_hash(pictures[0]) != pixel_hash(pictures[0].reshape(32, 128, 3))


def test_near_copies_and_no_strangers(faces: list[Sample]) -> None:
    pictures = [face.image for face in faces]
    large = np.asarray(Image.fromarray(pictures[3]).resize((150, 150), Image.Resampling.BICUBIC))
    found = hashes([*pictures, saved(pictures[1], 90), large, saved(pictures[1], 90)], "near")
    assert set_aside_copies(found, "near") == {12: 1, 13: 3, 14: 1}
    assert hashes(pictures[:1], "keep") == [None]
    assert set_aside_copies(["a", "a"], "keep") == {}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_near_by_bands_is_near_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes: list[int] = []
    for _ in range(300):
        code = int.from_bytes(rng.bytes(32), "big")
        if codes and rng.random() < 0.6:  # some bits away from an earlier one, about as many as may differ
            code = codes[int(rng.integers(len(codes)))]
            for bit in rng.choice(256, int(rng.integers(0, 20)), replace=False):
                code ^= 1 << int(bit)
        codes.append(code)
    texts: list[str | None] = [f"{code:064x}" for code in codes]
    texts[7] = None
    texts.append(texts[3])
    expected: dict[int, int] = {}
    firsts: list[int] = []
    for index, text in enumerate(texts):
        if text is None:
            continue
        same = texts.index(text)
        near = [first for first in firsts if (int(texts[first] or "", 16) ^ int(text, 16)).bit_count() <= 12]
        if same < index:
            expected[index] = expected.get(same, same)
        elif near:
            expected[index] = near[0]
        else:
            firsts.append(index)
    assert len(expected) > 50
    assert set_aside_copies(texts, "near") == expected


def test_the_hash_survives_saving_and_not_mirroring(faces: list[Sample]) -> None:
    for face in faces:
        first = int(difference_hash(face.image), 16)
        assert (int(difference_hash(saved(face.image, 95)), 16) ^ first).bit_count() <= 12
        assert (int(difference_hash(face.image[:, ::-1]), 16) ^ first).bit_count() > 24


# -- splits


def test_a_person_is_in_one_split_and_shares_are_met() -> None:
    shares = SplitConfig(validation=0.2, test=0.1)
    splits = [split_of(f"p{i}", shares) for i in range(4000)]
    assert splits == [split_of(f"p{i}", shares) for i in range(4000)]
    assert splits.count("validation") / 4000 == pytest.approx(0.2, abs=0.02)
    assert splits.count("test") / 4000 == pytest.approx(0.1, abs=0.015)
    assert set(map(split_of, "ab")) <= {"train", "validation", "test"}
    assert {split_of(f"p{i}", SplitConfig(validation=0, test=0)) for i in range(99)} == {"train"}


def test_the_archive_s_own_split_wins_where_wanted() -> None:
    def rows() -> list[Row]:
        return [
            Row(id="a", identity="x", split="test"),
            Row(id="b", identity="x"),
            Row(id="c", identity="x"),
            Row(id="d"),
        ]

    own = [row.split for row in split(SplitConfig())(rows())]
    assert own == ["test", split_of("x"), split_of("x"), split_of("d")]
    ours = [row.split for row in split(SplitConfig(own=False))(rows())]
    assert ours == [split_of("x")] * 3 + [split_of("d")]
    (bad,) = split(SplitConfig())([Row(id="a", split="part 7")])
    assert bad.error == "split: is 'part 7'; allowed: train, validation, test; or set data.split.own=false"


def test_no_points_at_all_raise_in_the_transform() -> None:
    with pytest.raises(BadInput, match="one place"):
        crop_transform(np.zeros((2, 2)), np.zeros((2, 2)), size=8)

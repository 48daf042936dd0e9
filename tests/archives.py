"""Tiny archives in every published layout, made of people who do not exist.

Odd here: the parts of CelebAMask-HQ overlap as the published ones do (skin lies under the nose, hair under a hat), so
only the publisher's painting order gives the map back. Pictures 2 k and 2 k + 1 show one person, so that a split by
identity has something to keep together. Every builder makes the folder `root` and returns the faces in their order.
"""

from __future__ import annotations

import io
import json
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m3face.data.imagefolder import face_row, write_imagefolder
from m3face.faces import CELEBA_NAMES, CLASSES, ID, draw_landmarks, resize_map, to_celeba, to_colours
from m3face.synthetic import Sample, make_sample

SEED, SIZE = 3, 64
LOOKS = 2

# what may lie under a part that is painted later
UNDER = {
    "skin": ("nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip"),
    "mouth": ("u_lip", "l_lip"),
    "hair": ("hat", "ear_r"),
    "neck": ("cloth",),
}


@lru_cache(maxsize=256)
def face(index: int, size: int = SIZE) -> Sample:
    """Face `index` of every archive."""
    return make_sample(SEED, index // LOOKS, size=size, variant=index % LOOKS)


def faces(count: int, size: int = SIZE) -> list[Sample]:
    return [face(index, size) for index in range(count)]


def png(pixels: NDArray[np.uint8], **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **more)
    return buffer.getvalue()


def jpeg(pixels: NDArray[np.uint8], **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 95, **more})
    return buffer.getvalue()


def _put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def parts_of(label_map: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """The mask of each part that is there, reaching under what is painted over it."""
    there = {name: label_map == ID[name] for name in CLASSES[1:] if (label_map == ID[name]).any()}
    for name, over in UNDER.items():
        if name in there:
            there[name] = np.isin(label_map, [ID[name], *(ID[part] for part in over)])
    return there


def celeba_number(index: int) -> int:
    """The CelebA picture that face `index` claims to be: a person's pictures share a split, and all splits occur."""
    return (1, 162_771, 182_638)[index // LOOKS % 3] + index


def identity(index: int) -> int:
    return index // LOOKS + 1


def celeba_split(index: int) -> str:
    return ("train", "validation", "test")[index // LOOKS % 3]


def label_list(names: list[str], samples: list[Sample]) -> str:
    """CelebA's attribute list."""
    lines = [str(len(names)), " ".join(CELEBA_NAMES) + " "]
    for name, sample in zip(names, samples, strict=True):
        labels = to_celeba(sample.attributes)
        lines.append(f"{name}  " + "  ".join("1" if labels.get(label) else "-1" for label in CELEBA_NAMES))
    return "\n".join(lines) + "\n"


def celebamask_hq(root: Path, count: int, size: int = SIZE) -> list[Sample]:
    """CelebAMask-HQ as published, masks at half the pictures' size."""
    samples = faces(count, size)
    for index, sample in enumerate(samples):
        _put(root / "CelebA-HQ-img" / f"{index}.jpg", jpeg(sample.image))
        for name, mask in parts_of(resize_map(sample.label_map, size // 2)).items():
            folder = root / "CelebAMask-HQ-mask-anno" / str(index // 2000)
            _put(folder / f"{index:05d}_{name}.png", png(np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1)))
    names = [f"{index}.jpg" for index in range(count)]
    _put(root / "CelebAMask-HQ-attribute-anno.txt", label_list(names, samples))
    poses = [f"{name} {s.yaw:.6f} {s.pitch:.6f} 0.0" for name, s in zip(names, samples, strict=True)]
    _put(root / "CelebAMask-HQ-pose-anno.txt", "\n".join([str(count), "Yaw Pitch Raw", *poses]) + "\n")
    mapping = [f"{i}          {celeba_number(i) - 1}     {celeba_number(i):06d}.jpg" for i in range(count)]
    _put(root / "CelebA-HQ-to-CelebA-mapping.txt", "\n".join(["idx     orig_idx     orig_file", *mapping]) + "\n")
    return samples


def celeba_lists(root: Path, count: int) -> None:
    """CelebA's identity and split lists, which may also lie beside CelebAMask-HQ."""
    names = [f"{celeba_number(index):06d}.jpg" for index in range(count)]
    parts = [("train", "validation", "test").index(celeba_split(index)) for index in range(count)]
    _put(root / "identity_CelebA.txt", "".join(f"{name} {identity(i)}\n" for i, name in enumerate(names)))
    _put(root / "list_eval_partition.txt", "".join(f"{name} {part}\n" for name, part in zip(names, parts, strict=True)))


def five_points(sample: Sample) -> NDArray[np.float32]:
    """The picture's left eye, right eye, nose, left and right mouth corner, whole pixels [5, 2]."""
    points = sample.landmarks
    centres = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
    return np.rint(np.stack(centres)).astype(np.float32)


def celeba(root: Path, count: int, size: int = SIZE) -> list[Sample]:
    """CelebA's aligned pictures (higher than wide) and all its lists."""
    samples = faces(count, size)
    margin = round(size * (1 - 178 / 218) / 2)
    order = sorted(range(count), key=celeba_number)  # a reader goes by number
    names = {index: f"{celeba_number(index):06d}.jpg" for index in order}
    for index in order:
        picture = samples[index].image[:, margin : size - margin]
        _put(root / "img_align_celeba" / names[index], jpeg(np.ascontiguousarray(picture)))
    _put(root / "list_attr_celeba.txt", label_list([names[i] for i in order], [samples[i] for i in order]))
    lines = []
    for index in order:
        moved = five_points(samples[index]) - np.array([margin, 0], dtype=np.float32)
        lines.append(f"{names[index]}  " + "  ".join(f"{value:.0f}" for value in moved.ravel()))
    places = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    columns = " ".join(f"{name}_{axis}" for name in places for axis in "xy")
    _put(root / "list_landmarks_align_celeba.txt", "\n".join([str(count), columns, *lines]) + "\n")
    celeba_lists(root, count)
    return [samples[index] for index in order]


def ffhq(root: Path, count: int, size: int = SIZE) -> list[Sample]:
    """FFHQ's folders of a thousand."""
    samples = faces(count, size)
    for index, sample in enumerate(samples):
        _put(root / f"{index // 1000 * 1000:05d}" / f"{index:05d}.png", png(sample.image))
    return samples


def imagefolder(root: Path, count: int, size: int = SIZE) -> list[Sample]:
    """What `m3face synth` writes."""
    samples = faces(count, size)
    write_imagefolder(samples, root, seed=SEED)
    return samples


def webdataset(root: Path, count: int, size: int = SIZE, *, a_tar: int = 3) -> list[Sample]:
    """Tars of `a_tar` faces: KEY.png, KEY.mask.png (ids), KEY.txt and KEY.json."""
    samples = faces(count, size)
    root.mkdir(parents=True)
    for first in range(0, count, a_tar):
        with tarfile.open(root / f"faces-{first // a_tar:06d}.tar", "w") as tar:
            for index in range(first, min(first + a_tar, count)):
                row = face_row(samples[index], index, seed=SEED)
                facts = {k: v for k, v in row.items() if k not in ("file_name", "label_map", "captions")}
                for ending, data in (
                    ("png", png(samples[index].image)),
                    ("mask.png", png(samples[index].label_map)),
                    ("txt", row["captions"]["en"][0].encode()),
                    ("json", json.dumps(facts).encode()),
                ):
                    member = tarfile.TarInfo(f"{index:06d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return samples


def _cell(data: bytes, path: str) -> dict[str, Any]:
    return {"bytes": data, "path": path}


def m3celeba(root: Path, count: int, size: int = SIZE, *, coloured: bool = True) -> list[Sample]:
    """M3CelebA's columns in data/train-…parquet and, the last quarter, data/test-….parquet; masks in colours or ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    samples = faces(count, size)
    records = []
    for index, sample in enumerate(samples):
        mask = to_colours(sample.label_map) if coloured else sample.label_map
        points = np.rint(sample.landmarks * (512 / size)).astype(int)
        texts = {code3: [f"{code3} {index} {k}" for k in range(3)] for code3 in ("eng", "fra", "deu", "ita", "spa")}
        records.append(
            {
                "id": f"{celeba_number(index):06d}",
                "image": _cell(jpeg(sample.image), f"{index}.jpg"),
                "mask": _cell(png(mask), f"{index}.png"),
                "landmark_image": _cell(jpeg(draw_landmarks(sample.landmarks, size=size)), f"{index}.jpg"),
                "landmark": points.ravel().tolist(),
                **{f"captions_{code3}": words for code3, words in texts.items()},
            }
        )
    (root / "data").mkdir(parents=True)
    cut = count - max(1, count // 4)
    for name, part in (("train", records[:cut]), ("test", records[cut:])):
        if part:
            file = root / "data" / f"{name}-00000-of-00001.parquet"
            pq.write_table(pa.Table.from_pylist(part), file, row_group_size=2)
    return samples[cut:] + samples[:cut]  # a reader goes by file name


def parquet(root: Path, count: int, size: int = SIZE) -> list[Sample]:
    """The row schema in two parquet files, pictures as PNG."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from m3face.data.parquet import SCHEMA

    samples = faces(count, size)
    records = []
    for index, sample in enumerate(samples):
        row = face_row(sample, index, seed=SEED)
        del row["file_name"]
        picture, label_map = _cell(png(sample.image), f"{index}.png"), _cell(png(sample.label_map), "")
        records.append({**row, "image": picture, "label_map": label_map})
    root.mkdir(parents=True)
    half = (count + 1) // 2
    for number, part in enumerate((records[:half], records[half:])):
        if part:
            pq.write_table(
                pa.Table.from_pylist(part, schema=SCHEMA), root / f"part-{number:05d}.parquet", row_group_size=2
            )
    return samples

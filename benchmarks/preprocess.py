"""How fast an archive becomes a dataset: `jobs/preprocess.py` against a plain loop and against `datasets.map`.

    python benchmarks/preprocess.py              # all arms that are installed; pip install datasets for the third

Odd here: all arms write the same files, and they are compared row by row. The job does more than the others: its parts
can be taken up again, it hashes its shards and writes a report, a card and a contact sheet, all within its seconds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arms

from m3face.config.dataset import DatasetConfig, PreprocessConfig
from m3face.config.loading import load_settings
from m3face.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

CONFIG = arms.ROOT / "jobs" / "configs" / "preprocess_imagefolder.yaml"
ARMS = ("plain", "ray", "datasets")
WANTED = {"ray / plain": 1.5, "ray / datasets": 0.95}

_FEW = 4 * 32  # faces a worker in the short run: so many chunks that none of the workers is left out


# --------------------------------------------------------------------------------------------------- the work
@dataclass
class Work:
    """Numbers of source rows to finished rows, as a table. The models open in the process that calls it first."""

    config: DatasetConfig
    _opened: tuple[Any, list[Any]] | None = None  # no cached_property: a copy of its lock, made by dill, is held

    def opened(self) -> tuple[Any, list[Any]]:
        """The source and the steps."""
        if self._opened is None:
            import torch

            from m3face.data.sources import open_source
            from m3face.pipelines.preparing import steps

            torch.set_num_threads(1)
            source = open_source(self.config.source, max_pixels=self.config.filter.max_pixels)
            self._opened = source, [step for group in steps(self.config) for step in group]
        return self._opened

    def __call__(self, indices: Sequence[int]) -> pa.Table:
        from m3face.data.parquet import to_table
        from m3face.pipelines.preparing import prepare

        source, steps = self.opened()
        return to_table(prepare(source.read(indices), steps), self.config.shards.pictures)


def write_shards(config: DatasetConfig, count: int, table_of: Callable[[range], pa.Table]) -> None:
    """The same files as the job's: a shard is a file for each split, fed chunk by chunk."""
    import pyarrow.compute as pc

    from m3face.data.containers import Rows
    from m3face.data.shards import Plan

    plan = Plan(rows=count, shards=config.shards, settings={})
    folder = Path(config.output) / "data"
    folder.mkdir(parents=True)
    for number in range(plan.count):
        with ExitStack() as opened:
            files: dict[str, Rows] = {}
            for chunk in plan.chunks(number):
                table = table_of(chunk)
                if table["error"].null_count < len(table):
                    raise DataError("error", "is filled", "faces without a fault", "this is an error of ours")
                for split in table["split"].unique().to_pylist():
                    if split not in files:
                        files[split] = Rows(folder / f"{split}-{number:05d}-of-{plan.count:05d}.parquet")
                        opened.callback(files[split].close)
                    files[split].add(table.filter(pc.equal(table["split"], split)))


def plain(config: PreprocessConfig) -> None:
    work = Work(config.data)
    write_shards(config.data, len(work.opened()[0]), work)


def with_datasets(config: PreprocessConfig) -> None:
    from datasets import Dataset, Features

    from m3face.data.parquet import SCHEMA, for_datasets
    from m3face.data.sources import open_source

    count = len(open_source(config.data.source))
    work, output = Work(config.data), Path(config.data.output)
    output.mkdir()
    made = Dataset.from_dict({"index": list(range(count))}).map(
        lambda batch: work(batch["index"]),
        batched=True,
        batch_size=config.data.shards.chunk,
        writer_batch_size=config.data.shards.chunk,
        num_proc=config.placement.workers,
        remove_columns=["index"],
        features=Features.from_arrow_schema(for_datasets(SCHEMA)),
        cache_file_name=str(output / "made.arrow"),
        new_fingerprint="made",
    )
    rows = made.with_format("arrow")
    write_shards(config.data, count, lambda chunk: rows[chunk.start : chunk.stop].cast(SCHEMA))


# -------------------------------------------------------------------------------------------------- the arms
def settings(source: Path, output: Path, faces: int, options: argparse.Namespace) -> list[str]:
    """What every arm is told; all three annotators look at every face."""
    always = [f"data.{column}.when=always" for column in ("landmarks", "parser", "attributes")]
    more = [f"data.align.size={options.size}", "data.filter.duplicates=keep", "data.max_errors=0"]
    places = [f"data.source.path={source}", f"data.source.count={faces}", f"data.output={output}"]
    return [*places, *always, *more, f"placement.workers={options.workers}"]


def source_folder(count: int, size: int) -> Path:
    """Rendered people as an `imagefolder`, made once."""
    from m3face.data.imagefolder import write_imagefolder
    from m3face.data.people import LOOKS, attribute_values

    @dataclass(frozen=True)
    class Face:
        image: Any
        label_map: Any
        landmarks: Any
        attributes: Mapping[str, str]
        identity: str

    store = arms.rendered(count, size)
    folder = store.folder.with_suffix(".imagefolder")
    if not folder.exists():
        arrays = (store["image"], store["label_map"], store["landmarks"], store["attributes"])
        faces = (
            Face(image, label_map, points, attribute_values(codes), f"p{i // LOOKS}")
            for i, (image, label_map, points, codes) in enumerate(zip(*arrays, strict=True))
        )
        write_imagefolder(faces, folder, seed=arms.SEED)
    return folder


def require_same(one: Path, other: Path) -> None:
    """DataError unless both datasets have the same files with the same rows."""
    import pyarrow.parquet as pq

    names = [sorted(path.name for path in (folder / "data").iterdir()) for folder in (one, other)]
    if names[0] != names[1]:
        raise DataError(other.name, f"wrote {', '.join(names[1])}", ", ".join(names[0]), "the arms differ")
    for name in names[0]:
        tables = [pq.read_table(folder / "data" / name) for folder in (one, other)]
        if not tables[0].equals(tables[1]):
            differ = [column for column in tables[0].column_names if not tables[0][column].equals(tables[1][column])]
            raise DataError(other.name, f"{name} has other {', '.join(differ)}", f"the rows of {one.name}")


def compare(options: argparse.Namespace) -> None:
    if not 64 <= options.size <= 512:
        raise ConfigError("--size", str(options.size), "64 to 512")
    chosen = options.arms or [arm for arm in ARMS if arm != "datasets" or find_spec("datasets") is not None]
    if unknown := [arm for arm in chosen if arm not in ARMS]:
        raise ConfigError("--arms", unknown[0], ", ".join(ARMS))
    if "datasets" in chosen and find_spec("datasets") is None:
        raise ConfigError("--arms", "datasets is not installed", "plain, ray", "pip install datasets")
    out = arms.check(options, "preprocess")
    if find_spec("datasets") is None:
        arms.say("without the arm datasets: pip install datasets adds it")
    options.arms = list(dict.fromkeys(chosen))
    with arms.workplace() as work:
        arms.say(f"{options.faces} faces of {options.size} pixels, rendered once")
        source = source_folder(options.faces, options.size)

        def one(arm: str, faces: int) -> arms.Run:
            output = work / f"{arm}-{faces}"
            shutil.rmtree(output, ignore_errors=True)
            told = ["--set", *settings(source, output, faces, options)]
            job = [arms.ROOT / "jobs" / "preprocess.py", "--config", CONFIG]
            command = [sys.executable, *(job if arm == "ray" else [__file__, "--arm", arm]), *told]
            took = arms.run(arm, command, work / "log")
            for other in set(work.glob(f"*-{faces}")) - {output}:
                require_same(other, output)
            return took

        few = min(_FEW * options.workers, options.faces // 4)
        results = list(arms.take_turns(options.arms, one, few=few, many=options.faces, rounds=options.rounds))
    rates = {result.arm: result.rate for result in results}
    ratios = {}
    for name, wanted in WANTED.items():
        top, _, bottom = name.partition(" / ")
        if {top, bottom} <= set(rates):
            ratios[name] = (arms.over(rates[top], rates[bottom]), wanted)
    arms.report(out, options, results, ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = arms.options_of("Preprocessing: the job on Ray, a plain loop, and datasets.map.", workers=2)
    parser.add_argument("--size", type=int, default=128, help="pixels a side of the faces (default 128)")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help=f"which of {', '.join(ARMS)}; all that are installed")
    options = parser.parse_args(arguments)
    if options.arm is None:
        return arms.answer(partial(compare, options))
    do = {"plain": plain, "datasets": with_datasets}[options.arm]
    return arms.answer(lambda: do(load_settings(PreprocessConfig, CONFIG, options.set)))


if __name__ == "__main__":
    sys.exit(main())

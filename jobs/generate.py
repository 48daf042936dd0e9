"""A dataset of faces that nobody has: from sentences, or from a grid of attributes, by the trained networks.

    python jobs/generate.py --config jobs/configs/generate_grid.yaml --set data.output=made
    ray job submit --working-dir . -- python jobs/generate.py --config ... --set data.output=s3://BUCKET/made ...

Odd here: where `m3face` is not installed, the one beside this file is used. Killed or stopped, the same command goes on
from what is finished. Every face says in its file that a model made it.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

if find_spec("m3face") is None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from m3face.config.generate import GenerateConfig
from m3face.config.job import run_job


def work(config: GenerateConfig) -> None:
    from m3face.distributed.generating import generate_dataset

    generate_dataset(config, say=partial(print, flush=True))


if __name__ == "__main__":
    sys.exit(run_job(GenerateConfig, work, "A dataset of faces that nobody has."))

"""From a face archive to a dataset: shards in the row schema, with label maps, landmarks, captions and a card.

    python jobs/preprocess.py --config jobs/configs/preprocess_celebamask_hq.yaml \\
        --set data.source.path=CelebAMask-HQ data.output=faces
    ray job submit --working-dir . -- python jobs/preprocess.py --config ... --set data.output=s3://BUCKET/faces ...

Odd here: where `m3face` is not installed, the one beside this file is used. Killed or stopped, the same command goes on
from what is finished.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

if find_spec("m3face") is None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from m3face.config.dataset import PreprocessConfig
from m3face.config.job import run_job


def work(config: PreprocessConfig) -> None:
    from m3face.distributed.preparing import prepare_dataset

    prepare_dataset(config, say=partial(print, flush=True))


if __name__ == "__main__":
    sys.exit(run_job(PreprocessConfig, work, "From a face archive to a dataset."))

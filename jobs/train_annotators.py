"""The four networks that look at faces: parser, landmark detector, attribute classifier, identity embedder.

    python jobs/train_annotators.py --config jobs/configs/tiny_parser.yaml --set train.workers=2
    ray job submit --working-dir . -- python jobs/train_annotators.py --config jobs/configs/tiny_parser.yaml \\
        --set storage=s3://BUCKET/runs

Odd here: where `m3face` is not installed, the one beside this file is used. Killed or stopped, the same command goes on
from the newest complete checkpoint.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

if find_spec("m3face") is None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from m3face.config import RunConfig
from m3face.config.flags import TRAINING
from m3face.config.job import run_job


def work(config: RunConfig) -> None:
    from m3face.distributed.training import train_network

    annotators = ("parser", "landmark_detector", "attribute_classifier", "identity_embedder")
    train_network(config, annotators, say=partial(print, flush=True))


if __name__ == "__main__":
    sys.exit(run_job(RunConfig, work, "Train an annotator.", flags=TRAINING, needs_ray=False))

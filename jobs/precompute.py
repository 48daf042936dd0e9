"""The caches that training reads, made beforehand: faces, text states, tokens, latents, embeddings.

    python jobs/precompute.py --config jobs/configs/precompute_tiny.yaml --set data.path=faces
    ray job submit --working-dir . -- python jobs/precompute.py --config ... --set data.path=s3://BUCKET/faces ...

Odd here: where `m3face` is not installed, the one beside this file is used. Killed or stopped, the same command goes on
from what is finished; `m3face train` with the same data finds what was made.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

if find_spec("m3face") is None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from m3face.config.job import run_job
from m3face.config.precompute import PrecomputeConfig


def work(config: PrecomputeConfig) -> None:
    from m3face.distributed.precomputing import precompute

    precompute(config, say=partial(print, flush=True))


if __name__ == "__main__":
    sys.exit(run_job(PrecomputeConfig, work, "Make the caches that training reads."))

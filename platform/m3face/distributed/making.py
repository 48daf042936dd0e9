"""From a plan and a recipe to a published dataset, or from what is there of it: the part that jobs share.

Odd here: a finished dataset is told before Ray starts, and nothing else of it is looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from m3face.config.dataset import PlacementConfig, StorageConfig
from m3face.data.card import finish, publish_sheet
from m3face.data.filtering import Copies, set_aside_copies
from m3face.data.publishing import close_work, decide
from m3face.data.shards import REPORT, Errors, Plan, open_output
from m3face.data.storage import S3, Storage, open_storage, s3_environment
from m3face.distributed.chunks import Recipe
from m3face.distributed.cluster import cluster, shortage, worker_environment
from m3face.distributed.filling import Say, fill_parts, publish_shards
from m3face.errors import ConfigError


def open_target(address: str, config: StorageConfig) -> Storage:
    """The output, if its address means the same everywhere, for S3 clients that follow `config`. Raises ConfigError."""
    if not address:
        raise ConfigError("data.output", "is empty", "a folder or s3:// address", "for example --set data.output=faces")
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    if submitted and not address.startswith(S3) and not Path(address).expanduser().is_absolute():
        got = f"{address!r} would lie in the submitted job's own copy of the working folder"
        raise ConfigError("data.output", got, "an absolute path that all nodes share, or s3://")
    os.environ.update(s3_environment(config))
    return open_storage(address)


def make_dataset(
    storage: Storage,
    plan: Plan,
    recipe: Recipe,
    placement: PlacementConfig,
    config: StorageConfig,
    *,
    copies: Copies,
    max_errors: float,
    say: Say,
    joined: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Make the dataset, or what is missing of it, and return its report. `joined` is called when Ray is there.

    Raises DataError (too many bad rows, or what the recipe raises), OutputError (the target) and Cancelled.
    """
    if open_output(storage, plan):
        close_work(storage)
        say(f"{storage.address} is finished already")
        report: dict[str, Any] = json.loads(storage.read(REPORT))
        return report
    say(f"{plan.rows} rows, {plan.count} shards, to {storage.address}")
    workers = placement.workers if recipe.annotates else 0
    environment = worker_environment(s3_environment(config))
    cpus, gpus = workers * placement.cpus, workers * placement.gpus
    with cluster(held=cpus):
        if lacks := shortage(cpus=cpus + (1 if gpus else 0), gpus=gpus):  # one more reads and writes for a GPU
            say(f"the cluster has {lacks}: waiting for more; fewer placement.workers or cpus would do with less")
        joined()
        fill_parts(storage, plan, recipe, placement, environment, max_errors=max_errors, say=say)
        decision = decide(storage, plan, partial(set_aside_copies, mode=copies))
        Errors.of(decision["errors"]).check(plan, max_errors)
        publish_sheet(storage, plan, decision)
        publish_shards(storage, plan, decision["copies"], environment, say=say)
    facts = finish(storage, plan, decision)
    bad, same = facts["errors"]["rows"], facts["copies"]
    say(f"{facts['rows']} rows, {bad} bad and {same} copies among them: {storage.address}")
    return facts

"""The settings that DeepSpeed is given: ours, and of a user's own those that say nothing else.

Odd here: no DeepSpeed is needed to say that a setting contradicts ours, so a job says it before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3face.config import TrainConfig
from m3face.errors import ConfigError

_BY: Mapping[str, str] = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.batch_size, train.workers and train.accumulate",
    "gradient_accumulation_steps": "train.accumulate",
    "gradient_clipping": "train.clip_norm",
    "bf16.enabled": "train.precision",
    "fp16.enabled": "train.precision",
    "zero_optimization.stage": "train.zero",
    "zero_optimization.offload_optimizer.device": "train.offload",
}
"""A setting of DeepSpeed's that ours decide, to the one of ours."""

_NOT_HERE: Mapping[str, str] = {
    "optimizer": "train.learning_rate, train.weight_decay",
    "scheduler": "train.schedule, train.warmup_steps",
    "amp": "train.precision",
    "torch_autocast": "train.precision",
}
"""What we do without DeepSpeed."""


def deepspeed_config(config: TrainConfig) -> dict[str, Any]:
    """All of DeepSpeed's settings; ConfigError where `train.deepspeed` contradicts the rest of the run.

    "auto", which other trainers write for what they fill in, is filled in here too.
    """
    passes = config.workers * config.accumulate
    own: dict[str, Any] = {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.batch_size // passes,
        "gradient_accumulation_steps": config.accumulate,
        "gradient_clipping": config.clip_norm,
        "bf16": {
            "enabled": config.precision == "bf16" and config.zero > 0
        },  # else autocast alone, as without DeepSpeed
        "fp16": {"enabled": config.precision == "fp16"},
        "zero_optimization": {"stage": config.zero},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's own needs no compiler
    }
    if config.offload:
        own["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    given = dict(config.deepspeed)
    for name, ours in _NOT_HERE.items():
        if name in given:
            raise ConfigError(f"train.deepspeed.{name}", "is given", "no such part", f"say it by {ours}")
    return _merged(own, given, "")


def _merged(own: Mapping[str, Any], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    both = dict(own)
    for name, value in given.items():
        where, ours = f"{path}{name}", own.get(name)
        if isinstance(value, dict):
            both[name] = _merged(ours if isinstance(ours, dict) else {}, value, f"{where}.")
        elif value == "auto":
            if ours is None:
                both.pop(name, None)
        elif (ours is not None or where in _BY) and value != _told(ours, where):
            by = _BY.get(where)
            remedy = f"leave it out, or set {by}" if by else "leave it out"
            raise ConfigError(f"train.deepspeed.{where}", repr(value), repr(_told(ours, where)), remedy)
        else:
            both[name] = value
    return both


def _told(ours: Any, where: str) -> Any:
    """What we say of `where`, also by saying nothing."""
    return "none" if ours is None and where.endswith("offload_optimizer.device") else ours

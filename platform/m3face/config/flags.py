"""The flags that users of other trainers type by habit, each as settings of ours.

Odd here: a flag is only another spelling of `--set`, so it is validated where everything is. Where theirs means
something else than ours, ours stands: `--train_batch_size` is over all workers.
"""

from __future__ import annotations

from collections.abc import Mapping

TRAINING: Mapping[str, tuple[str, ...]] = {
    "max_train_steps": ("train.steps={}",),
    "train_batch_size": ("train.batch_size={}",),
    "learning_rate": ("train.learning_rate={}",),
    "lr_scheduler": ("train.schedule={}",),
    "lr_warmup_steps": ("train.warmup_steps={}",),
    "adam_weight_decay": ("train.weight_decay={}",),
    "max_grad_norm": ("train.clip_norm={}",),
    "ema_decay": ("train.ema={}",),
    "snr_gamma": ("train.min_snr={}",),
    "rank": ("train.lora={}",),
    "mixed_precision": ("train.precision={}",),
    "proportion_empty_prompts": ("train.prompt_dropout={}",),
    "gradient_accumulation_steps": ("train.accumulate={}",),
    "gradient_checkpointing": ("train.gradient_checkpointing=true",),
    "checkpointing_steps": ("train.checkpoint_every={}",),
    "resume_from_checkpoint": ("resume={}",),
    "report_to": ("train.report_to={}",),
    "seed": ("seed={}",),
    "output_dir": ("storage={}",),
    "storage_path": ("storage={}",),
    "train_data_dir": ("data.source=dataset", "data.path={}"),
    "resolution": ("data.size={}",),
    "num_workers": ("train.workers={}",),
    "cpus_per_worker": ("train.cpus={}",),
    "use_gpu": ("train.device=cuda",),
    "max_failures": ("train.max_failures={}",),
    "deepspeed": ("train.deepspeed={}",),
}
"""A flag to the settings that it makes; one without a place for a value is a switch."""

WORDS: Mapping[tuple[str, str], str] = {
    ("mixed_precision", "no"): "fp32",
    ("resume_from_checkpoint", "latest"): "auto",
}
"""Their word for one of ours."""


def takes_value(settings: tuple[str, ...]) -> bool:
    """Whether a flag has a value."""
    return any("{}" in setting for setting in settings)


def overrides(flag: str, settings: tuple[str, ...], value: str | bool) -> list[str]:
    """What `--set` would be given for this flag."""
    said = WORDS.get((flag, str(value)), str(value))
    return [setting.replace("{}", said) for setting in settings]

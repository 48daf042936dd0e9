"""The settings of a training job: familiar flags, where a value comes from, and what is refused at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from m3face.config import RunConfig, job, load_config
from m3face.config.flags import TRAINING
from m3face.engines.deepspeed_config import deepspeed_config
from m3face.errors import ConfigError
from tests.chain import CONFIGS

CONFIG = str(CONFIGS / "tiny_controlnet_mask.yaml")
DEEPSPEED = ["train.engine=deepspeed", "train.workers=2", "train.batch_size=16", "train.accumulate=2"]


def _read(arguments: Sequence[str]) -> RunConfig:
    found: list[RunConfig] = []
    code = job.run_job(RunConfig, found.append, "", ["--config", CONFIG, *arguments], flags=TRAINING, needs_ray=False)
    assert code == 0
    return found[0]


@pytest.mark.parametrize("dash", ["_", "-"])
def test_flags_of_other_trainers_are_settings(dash: str, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"overlap_comm": false}}')
    flags = {
        "learning_rate": "1e-4", "train_batch_size": "12", "max_train_steps": "7", "resume_from_checkpoint": "latest",
        "output_dir": "s3://bucket/runs", "seed": "3", "mixed_precision": "no", "gradient_accumulation_steps": "3",
        "report_to": "none", "num_workers": "2", "train_data_dir": "faces",
    }  # fmt: skip
    given = [part for name, value in flags.items() for part in ("--" + name.replace("_", dash), value)]
    config = _read([*given, f"--gradient{dash}checkpointing", f"--use{dash}gpu"])
    train = config.train
    assert (train.learning_rate, train.batch_size, train.steps, train.accumulate) == (1e-4, 12, 7, 3)
    assert (train.precision, train.report_to, train.workers, train.device) == ("fp32", "none", 2, "cuda")
    assert (config.resume, config.storage, config.seed) == ("auto", "s3://bucket/runs", 3)
    assert (config.data.source, config.data.path, train.gradient_checkpointing) == ("dataset", "faces", True)
    assert _read(["--max_train_steps", "7", "--set", "train.steps=9"]).train.steps == 9, "--set wins"
    of_deepspeed = _read(["--deepspeed", str(tmp_path / "ds.json"), "--set", "train.engine=deepspeed"]).train.deepspeed
    assert of_deepspeed == {"zero_optimization": {"overlap_comm": False}}


def test_every_flag_is_a_setting_that_exists() -> None:
    words = {"lr_scheduler": "cosine", "mixed_precision": "bf16", "report_to": "none", "ema_decay": "0"}
    words |= {"rank": "0", "train_data_dir": "faces"}
    for flag, settings in TRAINING.items():
        value = words.get(flag, "128" if flag in ("resolution", "train_batch_size") else "1")
        if not settings[0].startswith(("storage", "resume", "train.deepspeed")):
            load_config(CONFIG, [setting.replace("{}", value) for setting in settings])


def test_explain_says_where_each_value_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", CONFIG, "--explain", "--learning_rate", "0.5", "--set", "train.steps=3"]
    assert job.run_job(RunConfig, lambda _: pytest.fail("it ran"), "", arguments, flags=TRAINING, needs_ray=False) == 0
    lines = {line.split(" = ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "0.5" in lines["train.learning_rate"] and "# --learning_rate: peak" in lines["train.learning_rate"]
    assert "# --set: " in lines["train.steps"]
    assert f"# {CONFIG}: " in lines["train.ema"]
    assert "# default: " in lines["train.workers"]
    assert lines.keys() >= {"storage", "resume", "data.count", "weights"}
    assert not [line for line in lines.values() if "# " not in line]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--learning_rate", "0"], "train.learning_rate: got 0; allowed: Input should be greater than 0"),
        (["--learning_rate", ".nan"], "train.learning_rate: got nan; allowed: Input should be"),
        (["--learning_rate", ".inf"], "train.learning_rate: got inf; allowed: Input should be a finite number"),
        (["--num_workers", "3"], "32 cannot be shared evenly by 3 workers in 1 passes: a multiple of 3"),
        (["--mixed_precision", "fp16"], "train.engine deepspeed can, torch has bf16"),
        (["--set", "train.offload=true"], "are for train.engine deepspeed"),
        (["--set", "train.engine=deepspeed", "train.zero=4"], "train.zero: got 4"),
        (["--set", "train.engine=deepspeed", "train.zero=0", "train.offload=true"], "at least 1"),
        (["--deepspeed", "nowhere.json"], "nowhere.json: No such file"),
        (["--deepspeed", CONFIG], "is not JSON"),
        (["--set", "train.component=map_vq", "train.engine=deepspeed"], "map_vq puts unused codes anew"),
        (["--set", "train.component=map_vq", "train.accumulate=2"], "map_vq counts the use of its codes once a step"),
        (["--set", "train.worker=2"], "train.worker: got 2; allowed: Extra inputs"),
        (["--report_to", "comet"], "train.report_to: got 'comet'; allowed: Input should be 'tensorboard'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config", CONFIG, *arguments]
    assert job.run_job(RunConfig, lambda _: pytest.fail("it ran"), "", given, flags=TRAINING, needs_ray=False) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and complaint in said


def _merged(given: dict[str, Any], *more: str) -> dict[str, Any]:
    return deepspeed_config(load_config(CONFIG, [*DEEPSPEED, f"train.deepspeed={json.dumps(given)}", *more]).train)


def test_settings_of_deepspeed_are_ours_and_what_else_is_given() -> None:
    given = {
        "zero_optimization": {"stage": "auto", "reduce_bucket_size": 1000},
        "bf16": {"enabled": "auto"},
        "gradient_accumulation_steps": 2,
        "train_batch_size": "auto",
        "steps_per_print": 7,
    }
    merged = _merged(given, "train.zero=2", "train.offload=true")
    assert merged["zero_optimization"] == {
        "stage": 2,
        "reduce_bucket_size": 1000,
        "offload_optimizer": {"device": "cpu"},
    }
    assert (merged["train_batch_size"], merged["train_micro_batch_size_per_gpu"]) == (16, 4)
    assert merged["bf16"] == {"enabled": True} and merged["fp16"] == {"enabled": False}
    assert merged["steps_per_print"] == 7


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"zero_optimization": {"stage": 3}}, r"zero_optimization.stage: 3; allowed: 1; .*, or set train.zero"),
        ({"train_batch_size": 8}, r"train_batch_size: 8; allowed: 16; leave it out, or set train.batch_size"),
        ({"gradient_clipping": 0.5}, r"gradient_clipping: 0.5; allowed: 1.0; leave it out, or set train.clip_norm"),
        ({"fp16": {"enabled": True}}, r"fp16.enabled: True; allowed: False; leave it out, or set train.precision"),
        ({"optimizer": {"type": "AdamW"}}, r"optimizer: is given; allowed: no such part; say it by train.learn"),
        ({"scheduler": {"type": "WarmupLR"}}, r"scheduler: is given; .*; say it by train.schedule"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}},
            r"zero_optimization.offload_optimizer.device: 'nvme'; allowed: 'none'; leave it out, or set train.offload",
        ),
    ],
)  # fmt: skip
def test_settings_of_deepspeed_that_contradict_ours_are_named(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=r"train.deepspeed\." + complaint):
        _merged(given)

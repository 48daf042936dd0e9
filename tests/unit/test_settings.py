"""Job files of every kind are read by one function; a wrong one is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from m3face.config import job, load_settings
from m3face.config.dataset import PreprocessConfig
from m3face.errors import ConfigError


def test_every_job_file_of_preprocessing_is_valid_and_needs_only_places(root: Path) -> None:
    files = sorted((root / "jobs/configs").glob("preprocess_*.yaml"))
    assert len(files) >= 3
    for file in files:
        given = ["data.source.path=archive", "data.output=faces"]
        config = load_settings(PreprocessConfig, file, given)
        assert config.data.output == "faces" and config.data.source.path == "archive"
        assert config.data.source.layout.replace("-", "_") == file.stem.removeprefix("preprocess_")


def test_on_and_no_are_words_and_true_is_true(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("data: {source: {layout: ffhq}, align: {on: true}}")
    data = load_settings(PreprocessConfig, file, ["data.split.own=false"]).data
    assert data.align.on is True and data.split.own is False
    with pytest.raises(ConfigError, match="got .'no', 'de'"):
        load_settings(PreprocessConfig, file, ["data.captions.languages=[no, de]"])


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("data.shards.chunks=3", r"data.shards.chunks: got 3; allowed: Extra inputs are not permitted; see .*yaml"),
        ("data.source.layout=lfw", r"data.source.layout: got 'lfw'; allowed: Input should be 'celebamask-hq'"),
        ("data.source", r"--set: 'data.source'; allowed: KEY.KEY=VALUE"),
        ("data.source.layout.x=1", r"--set: data.source.layout.x=1; .*; layout is a plain value"),
        ("data.split.test=0.96", r"data.split: .*validation and test leave nobody to train on"),
    ],
)
def test_a_wrong_setting_is_one_line(root: Path, override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as error:
        load_settings(PreprocessConfig, root / "jobs/configs/preprocess_celebamask_hq.yaml", [override])
    assert "\n" not in str(error.value)


def test_a_job_without_ray_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "find_spec", lambda name: None)
    arguments = ["--config", str(root / "jobs/configs/preprocess_synthetic.yaml")]
    assert job.run_job(PreprocessConfig, lambda config: pytest.fail("it ran"), "", arguments) == 2
    assert capsys.readouterr().err.startswith("error: ray: is not installed")

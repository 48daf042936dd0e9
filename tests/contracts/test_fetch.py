"""`m3face fetch`: what it refuses, each as one line with nothing written, and what it brings.

Odd here: nothing reaches a network. A place on the hub is played by its cache, laid out as the hub's client does.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m3face import checkpoints, presets
from m3face.cli import run
from m3face.errors import CheckpointError
from m3face.synthetic import make_sample
from tests.published import write_published

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, str]:
    return write_published(tmp_path_factory.mktemp("published"), side=512)


def _options(sources: dict[str, str]) -> list[str]:
    return [word for component, place in sources.items() for word in ("--from", f"{component}={place}")]


def _copy(sources: dict[str, str], component: str, home: Path) -> tuple[dict[str, str], Path]:
    """The sources with that of `component` copied to `home`, to be spoiled."""
    folder = home / "spoiled"
    shutil.copytree(sources[component].removeprefix("dir:"), folder)
    return sources | {component: f"dir:{folder}"}, folder


def _only_pickles(sources: dict[str, str], home: Path) -> dict[str, str]:
    changed, folder = _copy(sources, "text_encoder", home)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return changed


def _nothing(sources: dict[str, str], home: Path) -> dict[str, str]:
    changed, folder = _copy(sources, "unet", home)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    return changed


def _no_config(sources: dict[str, str], home: Path) -> dict[str, str]:
    changed, folder = _copy(sources, "unet", home)
    (folder / "config.json").unlink()
    return changed


def _cut_off(sources: dict[str, str], home: Path) -> dict[str, str]:
    changed, folder = _copy(sources, "unet", home)
    file = folder / "diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    file.unlink()  # a hard link would cut the original too
    file.write_bytes(data[:1000])
    return changed


BAD: dict[str, tuple[Callable[[dict[str, str], Path], dict[str, str]], str, int]] = {
    "a pickle": (_only_pickles, "text_encoder: .*pytorch_model.bin, a pickle", 3),
    "no weights": (_nothing, "unet: .*no weights in safetensors", 3),
    "no config": (_no_config, "unet: .*has no config.json", 3),
    "a file cut off": (_cut_off, "unet", 3),
    "another network": (lambda s, h: s | {"unet": s["vae"]}, "unet", 3),
    "words of no tokenizer": (lambda s, h: s | {"tokenizer": s["unet"]}, "tokenizer: ", 3),
    "a scheduler that is none": (lambda s, h: s | {"scheduler": s["unet"]}, "scheduler: ", 3),
    "no folder": (lambda s, h: s | {"vae": "dir:/no/such"}, "vae: no folder /no/such", 3),
    "no scheme": (lambda s, h: s | {"vae": "/no/such"}, "vae: '/no/such'; allowed: 'hub:", 2),
    "no repository": (lambda s, h: s | {"vae": "hub:nobody"}, "vae: 'hub:nobody'; allowed: 'hub:", 2),
    "an unknown network": (lambda s, h: s | {"nose": "dir:/"}, "--from: 'nose=dir:/'", 2),
    "a hub out of reach": (lambda s, h: s | {"vae": "hub:no-one/no-such@b/vae"}, "vae: .*cannot be reached", 3),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_fetched_is_one_line_and_nothing_is_written(
    case: str, sources: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, line, code = BAD[case]
    home = tmp_path / "home"
    home.mkdir()
    options = _options(spoil(sources, home))
    assert run(["fetch", "sd15", *options, "--out", str(tmp_path / "new" / "weights")]) == code
    said = capsys.readouterr()
    (error,) = [text for text in said.err.splitlines() if text.startswith("error: ")]
    assert re.search(line, error), error
    assert "Traceback" not in said.err
    assert not said.out
    left = [p for p in (tmp_path / "new").rglob("*")] if (tmp_path / "new").exists() else []
    assert left == []


def test_a_preset_of_our_own_and_a_folder_in_use_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fetch", "tiny", "--out", str(tmp_path / "new")]) == 2
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "unet").write_text("hours of work")
    assert run(["fetch", "sd15", "--out", str(tmp_path / "trained")]) == 5
    first, second = capsys.readouterr().err.splitlines()
    assert "preset: 'tiny' has no published networks" in first
    assert "is there already" in second
    assert (tmp_path / "trained" / "unet").read_text() == "hours of work"


@pytest.mark.parametrize("preset", ["sd15", "m3face"])
def test_without_a_network_one_line_says_what_to_do(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    assert run(["fetch", preset]) == 3
    (error,) = capsys.readouterr().err.splitlines()
    assert "cannot be reached" in error
    assert "--from tokenizer=dir:PATH" in error
    assert run(["generate", "a woman", "--preset", preset, "--out", str(tmp_path / "out")]) == 3
    (error,) = capsys.readouterr().err.splitlines()
    assert f"m3face fetch {preset}" in error


def test_a_branch_in_the_cache_of_the_hub_is_read(
    sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    repo, commit = tmp_path / "models--m3face--FaceControlNet", "0123456789abcdef0123456789abcdef01234567"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "landmark-mlin").write_text(commit)
    shutil.copytree(sources["controlnet_landmarks"].removeprefix("dir:"), repo / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    location = presets.get("m3face").sources["controlnet_landmarks"]
    found = checkpoints.locate("controlnet_landmarks", location)
    assert found.folder == repo / "snapshots" / commit
    assert found.origin == f"{location} ({commit})"
    assert [file.name for file in found.weights()] == ["diffusion_pytorch_model.safetensors"]


_REPOSITORY = (  # stable-diffusion-v1-5's, as the hub lists it, and what a branch of a ControlNet may hold
    "README.md",
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "v1-5-pruned.ckpt",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "checkpoint-500/optimizer.bin",
    "checkpoint-500/controlnet/config.json",
    "checkpoint-500/controlnet/diffusion_pytorch_model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
)


@pytest.mark.parametrize(
    ("location", "revision", "files"),
    [
        ("hub:a/b/unet", None, ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]),
        ("hub:a/b@mlin", "mlin", ["config.json", "diffusion_pytorch_model.safetensors"]),
        ("hub:a/b@main/tokenizer", "main", ["tokenizer/merges.txt", "tokenizer/vocab.json"]),
    ],
)
def test_only_what_is_needed_is_downloaded(
    location: str, revision: str | None, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.utils._paths import filter_repo_objects

    def download(repo: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((repo, revision))
        for name in filter_repo_objects(_REPOSITORY, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return str(tmp_path)

    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = checkpoints.locate("unet", location)
    assert asked == [("a/b", revision)]
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == files
    assert [file.name for file in sorted(found.folder.iterdir()) if file.is_file()] == [Path(f).name for f in files]
    with pytest.raises(CheckpointError, match="nothing to read in nothing"):
        checkpoints.locate("unet", "hub:a/b/nothing")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("RevisionNotFoundError", "no such branch; .*--from unet=hub:OWNER/REPO@BRANCH/FOLDER"),
        ("RepositoryNotFoundError", "no such repository"),
        ("GatedRepoError", "log in to the hub"),
        ("HfHubHTTPError", "cannot be reached"),
    ],
)
def test_what_the_hub_answers_is_one_line(kind: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def download(*_: object, **__: object) -> str:
        error: type[Any] = getattr(errors, kind)
        raise error("no\nnot at all", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match=line) as refused:
        checkpoints.locate("unet", "hub:a/b@c/d")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("preset", ["sd15", "m3face"])
def test_fetched_weights_are_linked_verified_and_make_a_face(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way of a user: fetch, then `generate --preset`, which looks in the same place."""
    sources = write_published(tmp_path / "published", side=512, alt=preset == "m3face")
    assert run(["fetch", preset, *_options(sources)]) == 0
    weights = presets.cached(preset)
    try:
        checkpoints.verify(weights)
        manifest = checkpoints.read_manifest(weights)
        assert manifest["preset"] == preset
        assert manifest["sources"] == sources
        unet = Path("unet") / "diffusion_pytorch_model.safetensors"
        assert (weights / unet).samefile(Path(sources["unet"].removeprefix("dir:")) / unet.name)
        assert not list(weights.rglob("*.bin"))
        assert not list(weights.rglob("*.fp16.*"))
        capsys.readouterr()
        points = make_sample(0, 0, size=512).landmarks
        (tmp_path / "points.json").write_text(json.dumps(points.tolist()))
        options = ["--landmarks", str(tmp_path / "points.json"), "--steps", "1", "--out", str(tmp_path / "out")]
        assert run(["generate", "a woman", "--preset", preset, *options]) == 0
        folder = Path(capsys.readouterr().out.strip())
        assert np.asarray(Image.open(folder / "face.png")).shape == (512, 512, 3)
        assert np.allclose(json.loads((folder / "landmarks.json").read_text()), points, atol=1e-3)
    finally:
        shutil.rmtree(weights)

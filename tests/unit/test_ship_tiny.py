"""`make ship-tiny` replaces the package's weights by whole ones only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from m3face import checkpoints
from m3face.presets import get, weights_folder


def test_weights_that_lack_a_network_are_refused_and_the_shipped_ones_stay(root: Path, tmp_path: Path) -> None:
    shipped = weights_folder(get("tiny").weights)
    before = (shipped / "manifest.json").read_bytes()
    shutil.copytree(shipped / "parser", tmp_path / "some" / "parser")
    checkpoints.write_manifest(tmp_path / "some")
    done = subprocess.run(
        [sys.executable, "jobs/ship_tiny.py", str(tmp_path / "some")], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("error: weights: ") and "text_encoder is missing" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (shipped / "manifest.json").read_bytes() == before
    checkpoints.verify(shipped)

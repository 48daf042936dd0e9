"""What every test shares: nothing reaches the network, nothing is written to the user's folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.chain import Chain

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# child processes find the package as pytest itself does (`pythonpath` in pyproject.toml)
_SOURCE = str(Path(__file__).parents[1] / "platform")
os.environ["PYTHONPATH"] = os.pathsep.join([_SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch: these networks gain nothing from more, and on a busy machine waiting ones cost minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The chain of `tiny` at small counts; networks train when a test first asks for them."""
    from m3face.tasks import words
    from tests.chain import Chain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_TOKENIZER_TEXTS", 1500)
        yield Chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder of fresh networks; one thread, as the preset asks."""
    import torch

    from tests.untrained import write_untrained_weights

    torch.set_num_threads(1)
    return write_untrained_weights(tmp_path_factory.mktemp("untrained"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU"))

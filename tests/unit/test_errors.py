"""Errors are one line, keep their parts, and survive a trip to another process."""

from __future__ import annotations

import pickle

import pytest

from m3face.errors import (
    BadInput,
    Cancelled,
    CheckpointError,
    ConfigError,
    DataError,
    M3FaceError,
    OutputError,
    TrainingError,
)

LEAVES = {
    ConfigError: (2, 400),
    BadInput: (2, 422),
    CheckpointError: (3, 503),
    DataError: (4, 409),
    TrainingError: (6, 500),
    OutputError: (5, 507),
    Cancelled: (130, 499),
}


def test_the_table_names_every_leaf():
    assert set(M3FaceError.__subclasses__()) == set(LEAVES)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_exit_code_and_http_status(leaf):
    assert (leaf.exit_code, leaf.http_status) == LEAVES[leaf]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_pickling_keeps_everything(leaf):
    error = leaf("mask", "is 3 x 4", "a square map", "crop it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is leaf
    assert (again.field, again.got, again.allowed, again.remedy) == ("mask", "is 3 x 4", "a square map", "crop it")
    assert str(again) == str(error)


def test_the_message_is_one_line_with_all_four_parts():
    line = str(BadInput("prompt", "has a\nline  break", "one line", "join the lines"))
    assert line == "prompt: has a line break; allowed: one line; join the lines"


def test_without_a_remedy_nothing_hangs_over():
    assert str(BadInput("steps", "0", "1..100")) == "steps: 0; allowed: 1..100"

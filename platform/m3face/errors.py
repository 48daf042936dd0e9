"""The whole error tree, and how each leaf leaves the program.

M3FaceError
├── ConfigError      a setting is wrong                exit 2    HTTP 400
├── BadInput         what the user gave is wrong       exit 2    HTTP 422   (a row error in Ray Data)
├── CheckpointError  weights missing or damaged        exit 3    HTTP 503
├── DataError        a dataset or cache is wrong       exit 4    HTTP 409
├── TrainingError    the numbers of a training went    exit 6    HTTP 500
├── OutputError      a result cannot be written        exit 5    HTTP 507
└── Cancelled        whoever asked no longer wants it  exit 130  HTTP 499

Every message is one line that names the field, what came, what is allowed and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class M3FaceError(Exception):
    """Base of every error that a user can cause or cure.

    `field` is the name as the user wrote it (an option, a config key, a file), `got` what came,
    `allowed` what would be accepted, `remedy` the next step.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, field: str, got: str, allowed: str, remedy: str = "") -> None:
        super().__init__(field, got, allowed, remedy)
        self.field, self.got, self.allowed, self.remedy = field, got, allowed, remedy

    def __str__(self) -> str:
        parts = [f"{self.field}: {self.got}", f"allowed: {self.allowed}"]
        if self.remedy:
            parts.append(self.remedy)
        return " ".join("; ".join(parts).split())


class ConfigError(M3FaceError):
    """A setting is unknown, out of range or contradicts another."""

    exit_code = 2
    http_status = 400


class BadInput(M3FaceError):
    """A prompt, picture, map or point that cannot be used as it came."""

    exit_code = 2
    http_status = 422


class CheckpointError(M3FaceError):
    """Weights that are missing, damaged, unfinished or of another shape."""

    exit_code = 3
    http_status = 503


class DataError(M3FaceError):
    """A dataset folder, row or cache that is missing, stale or malformed."""

    exit_code = 4
    http_status = 409


class TrainingError(M3FaceError):
    """A training whose numbers are no longer finite; its last checkpoint is good."""

    exit_code = 6
    http_status = 500


class OutputError(M3FaceError):
    """A result that cannot be written where it was asked to go."""

    exit_code = 5
    http_status = 507


class Cancelled(M3FaceError):
    """Work that its own caller stopped half-way; nothing is wrong."""

    exit_code = 130
    http_status = 499

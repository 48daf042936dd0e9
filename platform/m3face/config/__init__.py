"""One closed tree of settings for a job, a stage and the note in every checkpoint.

Odd here: no torch is imported on this path, so `--help` and bad input answer at once. Unknown keys are errors.
"""

from m3face.config.loading import load_settings, one_line
from m3face.config.schema import (
    COMPONENTS,
    Closed,
    Component,
    DataConfig,
    RunConfig,
    TrainConfig,
    Workplace,
    load_config,
)

__all__ = [
    "COMPONENTS",
    "Closed",
    "Component",
    "DataConfig",
    "RunConfig",
    "TrainConfig",
    "Workplace",
    "load_config",
    "load_settings",
    "one_line",
]

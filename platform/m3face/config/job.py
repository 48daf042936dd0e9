"""The command line of a job: `--config FILE --set a.b=c d.e=f`, and an exit code.

Odd here: the work is a function that imports what it needs itself, so a mistake in the settings is answered at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TypeVar

from pydantic import BaseModel

from m3face.config.loading import load_settings
from m3face.errors import ConfigError, M3FaceError

Model = TypeVar("Model", bound=BaseModel)


def run_job(
    model: type[Model], work: Callable[[Model], object], description: str, arguments: Sequence[str] | None = None
) -> int:
    """Do `work` with the settings that the command line gives; the exit code. What goes wrong is one line on stderr."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, metavar="FILE", help="the job file, one of jobs/configs")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="a setting of it")
    options = parser.parse_args(arguments)
    try:
        config = load_settings(model, options.config, options.set)
        if find_spec("ray") is None:
            raise ConfigError("ray", "is not installed", "the extra ray", "pip install -e '.[ray]' in a checkout")
        work(config)
    except M3FaceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is a command line
        return error.exit_code
    return 0

"""The command line of a job: `--config FILE --set a.b=c d.e=f`, familiar flags, `--explain`, and an exit code.

Odd here: the work is a function that imports what it needs itself, so a mistake in the settings is answered at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TypeVar

from pydantic import BaseModel

from m3face.config.flags import overrides, takes_value
from m3face.config.loading import load_settings
from m3face.errors import ConfigError, M3FaceError

Model = TypeVar("Model", bound=BaseModel)


def run_job(
    model: type[Model],
    work: Callable[[Model], object],
    description: str,
    arguments: Sequence[str] | None = None,
    *,
    flags: Mapping[str, tuple[str, ...]] | None = None,
    needs_ray: bool = True,
) -> int:
    """Do `work` with the settings that the command line gives; the exit code. What goes wrong is one line on stderr.

    `flags` are other spellings of settings (`m3face.config.flags`); what `--set` says wins over them.
    """
    flags = flags or {}
    options = _parser(description, flags).parse_args(arguments)
    try:
        said: dict[str, str] = {}
        given: list[str] = []
        for flag, settings in flags.items():
            if (value := getattr(options, flag)) is not None:
                found = overrides(flag, settings, value)
                given += found
                said |= {setting.partition("=")[0]: f"--{flag}" for setting in found}
        said |= {setting.partition("=")[0]: "--set" for setting in options.set}
        config = load_settings(model, options.config, [*given, *options.set])
        if options.explain:
            print("\n".join(explained(config, said, options.config)))  # noqa: T201 - this is a command line
            return 0
        if needs_ray and find_spec("ray") is None:
            raise ConfigError("ray", "is not installed", "the extra ray", "pip install -e '.[ray]' in a checkout")
        work(config)
    except M3FaceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is a command line
        return error.exit_code
    return 0


def _parser(description: str, flags: Mapping[str, tuple[str, ...]]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, metavar="FILE", help="the job file, one of jobs/configs")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="a setting of it")
    parser.add_argument("--explain", action="store_true", help="print every setting and where it comes from, no more")
    for flag, settings in flags.items():
        spellings = dict.fromkeys((f"--{flag}", f"--{flag.replace('_', '-')}"))
        told = "the same as --set " + " ".join(settings).replace("{}", "VALUE")
        if takes_value(settings):
            parser.add_argument(*spellings, dest=flag, metavar="VALUE", help=told)
        else:
            parser.add_argument(*spellings, dest=flag, action="store_const", const=True, help=told)
    return parser


def explained(config: BaseModel, said: Mapping[str, str], file: str, prefix: str = "") -> Iterator[str]:
    """One line for each setting: `train.steps = 100   # --set: optimizer steps in all`.

    `said` holds the settings of the command line and how each was said there.
    """
    for name, field in type(config).model_fields.items():
        value, key = getattr(config, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from explained(value, said, file, f"{key}.")
            continue
        origin = file if name in config.model_fields_set else "default"
        origin = said.get(key, origin)
        yield f"{f'{key} = {value!r}':<44}  # {origin}: {field.description or ''}".rstrip(": ")

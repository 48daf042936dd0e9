"""How a YAML file plus `--set a.b=c` becomes a settings tree of any closed model, and how a wrong one is named.

Odd here: only true and false are truth values, as in YAML 1.2. To the 1.1 of PyYAML `on` and `no` are too, so a key
called `on` would be no name and Norwegian no language.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from m3face.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Plain values, with the truth values of YAML 1.2."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def one_line(error: ValidationError, *, where: str) -> ConfigError:
    """The first complaint of pydantic as one line that names the field, what came and what is allowed."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or where
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    got = f"got {first['input']!r}"[:120]
    return ConfigError(field, got, f"{first['msg']}{more}", f"see {where}")


def _parse_override(text: str) -> tuple[list[str], Any]:
    path, separator, value = text.partition("=")
    if not separator or not path:
        raise ConfigError("--set", f"{text!r}", "KEY.KEY=VALUE", "for example --set train.steps=100")
    try:
        return path.split("."), yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise ConfigError("--set", f"{text!r}", "a YAML value", "for example --set train.steps=100") from None


def load_settings(model: type[Model], path: str | Path, overrides: Sequence[str] = ()) -> Model:
    """The validated settings of a YAML file with `overrides` ("train.steps=100") laid over it.

    Raises ConfigError for a missing or malformed file, an unknown key or a value out of range.
    """
    path = Path(path)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError("config", f"{path}: {error.strerror}", "a readable YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("config", f"{path} is not YAML: {error}", "a YAML mapping") from None
    if not isinstance(tree, dict):
        raise ConfigError("config", f"{path} holds {type(tree).__name__}", "a YAML mapping")
    for text in overrides:
        keys, value = _parse_override(text)
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ConfigError("--set", text, "a path into the settings tree", f"{key} is a plain value")
        node[keys[-1]] = value
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise one_line(error, where=str(path)) from None

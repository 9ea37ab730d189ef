"""YAML and JSON into frozen dataclasses, refusing unknown, missing and mistyped keys by name."""
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Mapping, Tuple, Type, TypeVar, Union

import dacite
import yaml

from hybridvla_core.errors import ConfigurationError, few
from hybridvla_core.files import refuse_pointer

T = TypeVar("T")
Vector = Tuple[float, ...]
#: libyaml's loader, six times as fast, where PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Levels of a YAML file. libyaml's composer recurses in C and would end the process in a file nested by mistake or malice.
MOST_NESTED = 100


def require(condition: bool, message: str) -> None:
    """Raises ConfigurationError(message) unless the condition holds."""
    if not condition:
        raise ConfigurationError(message)


def require_tables(where: str, tables: Mapping[str, Vector], entries: int) -> None:
    """Raises ConfigurationError unless every named table has that many finite numbers."""
    for key, values in tables.items():
        require(len(values) == entries, f"{where}: {key} has {len(values)} entries and needs {entries}")
        require(all(math.isfinite(value) for value in values), f"{where}: {key} needs finite numbers")


def in_range(key: str, value: float, low: float, high: float) -> None:
    """Raises ConfigurationError naming the key unless low <= value <= high.

    Args:
        key: name of the value in the message, with its section, as `franka: min_state_hz`.
        value: the number that was read; NaN is outside every range.
        low: smallest allowed value.
        high: largest allowed value.
    """
    require(low <= value <= high, f"{key} must lie between {low:g} and {high:g}, and is {value:g}")


def from_mapping(cls: Type[T], data: Mapping[str, Any], where: str) -> T:
    """Builds a dataclass from a mapping.

    Lists become tuples and integers become floats where the field says so. No number may be NaN or infinite: compared
    with a limit, a NaN passes every check. Range checks belong to `__post_init__` of the dataclass, which raises
    `ConfigurationError` or `ValueError`.

    Args:
        cls: The dataclass.
        data: Its keys and values.
        where: Names the source in messages.

    Returns:
        An instance of `cls`.

    Raises:
        ConfigurationError: A key is unknown or missing, a value has a wrong type or is out of range.
    """
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{where}: expected a mapping of keys to values, found {type(data).__name__}")
    config = dacite.Config(strict=True, cast=[tuple], type_hooks={float: _to_float})
    try:
        return dacite.from_dict(cls, dict(data), config)
    except dacite.UnexpectedDataError as error:
        keys = few(error.keys, 8)
        raise ConfigurationError(f"{where}: unknown key {keys}; remove it or correct its spelling") from error
    except dacite.MissingValueError as error:
        raise ConfigurationError(f"{where}: missing key {error.field_path}; add it") from error
    except _NumberError as error:
        raise ConfigurationError(f"{where}: {error.field_path} is {error.value!r}; use a finite number") from error
    except (dacite.DaciteError, ValueError, TypeError, ArithmeticError) as error:
        raise ConfigurationError(f"{where}: {error}") from error


def load_file(cls: Type[T], path: Union[str, Path]) -> T:
    """Read a YAML or JSON file into the dataclass `cls`; errors as `from_mapping`, plus an unreadable file."""
    return from_mapping(cls, read_mapping(path), str(path))


def read_mapping(path: Union[str, Path]) -> Mapping[str, Any]:
    """Parse a YAML (`.yaml`, `.yml`) or JSON file whose top level is a mapping."""
    path = Path(path)
    refuse_pointer(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else _parse_yaml(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: not valid {path.suffix[1:].upper() or 'YAML'}: {error}") from error
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{path}: expected keys and values at the top level")
    return data


def _parse_yaml(text: str) -> object:
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_NESTED:
            raise ValueError(f"nested more than {MOST_NESTED} levels deep")
    return yaml.load(text, Loader=LOADER)  # the safe loader, written in C


class _NumberError(dacite.DaciteFieldError):
    """No finite number where a field wants one. dacite adds the field's path on its way up."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


def _to_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _NumberError(value)
    number = float(value)
    if not math.isfinite(number):
        raise _NumberError(value)
    return number

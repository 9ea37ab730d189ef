"""Loading of YAML and JSON into frozen dataclasses; unknown, missing and mistyped keys are refused by name."""
from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Set, Tuple, Type, TypeVar, Union

import dacite
import yaml

from hybridvla_core.errors import ConfigurationError, few
from hybridvla_core.files import refuse_pointer

T = TypeVar("T")
Vector = Tuple[float, ...]
#: libyaml's loader, six times as fast, if PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Most levels of a YAML file. libyaml's composer recurses in C: a file nested by mistake or malice would crash the process.
MOST_NESTED = 100
#: Metadata key of a field whose words include on or off.
ON_OFF = "on_off"
MERGE = "tag:yaml.org,2002:merge"


def require(condition: bool, message: str) -> None:
    """Raises ConfigurationError(message) unless the condition holds."""
    if not condition:
        raise ConfigurationError(message)


def require_tables(where: str, tables: Mapping[str, Vector], entries: int) -> None:
    """Raises ConfigurationError unless every named table has `entries` finite numbers."""
    for key, values in tables.items():
        require(len(values) == entries, f"{where}: {key} has {len(values)} entries and needs {entries}")
        require(all(math.isfinite(value) for value in values), f"{where}: {key} needs finite numbers")


def in_range(key: str, value: float, low: float, high: float, above: bool = False) -> None:
    """Raises ConfigurationError naming the key unless low <= value <= high.

    Args:
        key: Name of the value in the message, with its section, as in `franka: min_state_hz`.
        value: Number that was read; NaN is outside every range.
        low: Smallest allowed value.
        high: Largest allowed value.
        above: Whether `low` itself is excluded.
    """
    bounds = f"above {low:g} and up to {high:g}" if above else f"between {low:g} and {high:g}"
    require(low <= value <= high and not (above and value == low), f"{key} must lie {bounds}, and is {value!r}")


def one_of(key: str, value: object, allowed: Iterable[str]) -> None:
    """Raises ConfigurationError naming the key, its value and the allowed values, unless `value` is among `allowed`."""
    names = tuple(allowed)
    require(value in names, f"{key} is {value!r}; use one of {', '.join(names)}")


def positive(key: str, value: float) -> None:
    """Raises ConfigurationError naming the key and the value unless value > 0."""
    require(value > 0.0, f"{key} must be positive, and is {value:g}")


def on_or_off(default: str) -> str:
    """Returns a text field whose words include on or off, which YAML 1.1 reads as true and false."""
    return dataclasses.field(default=default, metadata={ON_OFF: True})


def from_mapping(cls: Type[T], data: Mapping[str, Any], where: str) -> T:
    """Builds a dataclass from a mapping.

    Lists become tuples and integers become floats if the field is declared so. No number may be NaN or infinite: a NaN
    passes every comparison with a limit. Range checks belong in `__post_init__` of the dataclass, which raises
    `ConfigurationError` or `ValueError`.

    Args:
        cls: The dataclass.
        data: Its keys and values.
        where: Name of the source in messages.

    Returns:
        An instance of `cls`.

    Raises:
        ConfigurationError: A key is unknown or missing, or a value has a wrong type or is out of range.
    """
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{where}: expected a mapping of keys to values, found {type(data).__name__}")
    said = {field.name for field in dataclasses.fields(cls) if field.metadata.get(ON_OFF)}  # type: ignore[arg-type]
    data = {key: ("on" if value else "off") if key in said and isinstance(value, bool) else value for key, value in data.items()}
    config = dacite.Config(strict=True, cast=[tuple], type_hooks={float: _to_float})
    try:
        return dacite.from_dict(cls, data, config)
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
    """Reads a YAML or JSON file into the dataclass `cls`; raises as `from_mapping` does, and for an unreadable file."""
    return from_mapping(cls, read_mapping(path), str(path))


def read_mapping(path: Union[str, Path]) -> Mapping[str, Any]:
    """Parses a YAML (`.yaml`, `.yml`) or JSON file whose top level is a mapping; refuses a key that appears twice in one."""
    path = Path(path)
    refuse_pointer(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, object_pairs_hook=_once_each) if path.suffix == ".json" else _parse_yaml(text)
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
    loader = LOADER(text)       # a safe one
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        mappings = list(_mappings(node, set()))
        for mapping in mappings:
            _refuse_twice(mapping)
        for mapping in mappings:
            _merge(mapping)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _mappings(node: yaml.Node, seen: Set[int]) -> Iterator[yaml.MappingNode]:
    """Yields every mapping of a document once, nested mappings before the enclosing one."""
    if id(node) in seen:        # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _mappings(item, seen)
    elif isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield from _mappings(value, seen)
        yield node


def _refuse_twice(mapping: yaml.MappingNode) -> None:
    """Raises ValueError for a key that appears twice in a mapping: the loader silently takes the last one."""
    lines: Dict[Tuple[str, str], int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            raise ValueError(f"key {key.value} stands twice, in line {lines[name]} and in line {line}; leave one of them out")
        lines[name] = line


def _merge(mapping: yaml.MappingNode) -> None:
    """Merges the mappings that `<<` names: a mapping's own keys win, then the mappings of a list in their order.

    PyYAML has done this in two ways: 6.0.4 takes a list's last mapping, and may lose keys that a merged mapping overrides.
    """
    sources: List[yaml.Node] = []
    for key, value in mapping.value:
        if key.tag == MERGE:
            sources += value.value[::-1] if isinstance(value, yaml.SequenceNode) else [value]
    if not sources or not all(isinstance(source, yaml.MappingNode) for source in sources):
        return      # the loader reports what is not a mapping
    own = [pair for pair in mapping.value if pair[0].tag != MERGE]
    found: Dict[object, Tuple[yaml.Node, yaml.Node]] = {}
    for key, value in [pair for source in sources for pair in source.value] + own:
        found[(key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)] = (key, value)
    mapping.value = list(found.values())


def _once_each(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = next(key for index, (key, _) in enumerate(pairs) if key in (other for other, _ in pairs[:index]))
        raise ValueError(f"key {key} stands twice; leave one of them out")
    return found


class _NumberError(dacite.DaciteFieldError):
    """A value that should be a finite number is not one. dacite adds the field's path as the error propagates."""

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

"""Reading run.yaml: errors name the file, the line, the key, and what was probably meant."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pymlp.config.kinds import KINDS, kind_named
from pymlp.config.models import RunConfig

__all__ = ["ConfigError", "load_config", "parse_config"]


class ConfigError(ValueError):
    """A run configuration that cannot be used; the text names line, key and remedy."""


def load_config(path: str | Path) -> RunConfig:
    """Read and check a run configuration.

    :raises ConfigError: for a missing or unreadable file, broken YAML, unknown keys or kinds and
        values out of range, all problems at once, each with its line
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `pymlp init` writes a configuration") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the run.yaml inside it") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    return parse_config(text, str(path))


def parse_config(text: str, name: str = "run.yaml") -> RunConfig:
    """Check the text of a run configuration; ``name`` stands for the file in error messages.

    :raises ConfigError: as `load_config`
    """
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{name}: expected sections such as `data:`, found no keys at all")
    if "kind" not in document:
        raise ConfigError(f"{name}: missing key `kind`, one of {', '.join(sorted(KINDS))}")
    try:
        kind = kind_named(str(document["kind"]))
    except ValueError as error:
        raise ConfigError(f"{name}, line {_line(document, ('kind',))}: {error}") from None
    try:
        return kind.config.model_validate(_plain(document))
    except ValidationError as error:
        problems = [
            _problem(dict(item), document, kind.config, name)
            for item in error.errors(include_url=False)
        ]
        # A union or a tuple reports one mistake several times over.
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None


def _plain(node: Any) -> Any:
    """Copy ruamel's round-trip containers and scalars into plain ones, which pydantic expects."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return node if isinstance(node, bool) else kind(node)
    return node


def _line(document: Any, location: tuple[Any, ...]) -> int:
    """Return the line (from 1) of the deepest part of ``location`` that the document has."""
    line = 0
    node: Any = document
    for key in location:
        if isinstance(node, dict) and key in node:
            line = _remembered_line(node, "key", key)
        elif isinstance(node, list) and isinstance(key, int) and key < len(node):
            line = _remembered_line(node, "item", key)
        else:
            break
        node = node[key]
    return int(line) + 1


def _remembered_line(node: Any, kind: str, key: Any) -> int:
    """Return the line (from 0) that ruamel remembers for a key of a mapping or item of a list."""
    return int(getattr(node.lc, kind)(key)[0])


def _section(model: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel] | None:
    """Return the model whose field the last part of ``location`` is."""
    current: Any = model
    for key in location[:-1]:
        field = current.model_fields.get(key) if isinstance(key, str) else None
        current = field.annotation if field is not None else None
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return None
    return current


def _problem(item: dict[str, Any], document: Any, model: type[BaseModel], name: str) -> str:
    location = tuple(item["loc"])
    keys = [part for part in location if not (isinstance(part, str) and part.startswith("tuple"))]
    dotted = ".".join(str(key) for key in keys) or "file"
    where = f"{name}, line {_line(document, tuple(keys))}: {dotted}"
    if item["type"] == "extra_forbidden":
        section = _section(model, location)
        known = list(section.model_fields) if section is not None else []
        return f"{where}: unknown key{_suggestion(str(location[-1]), known)}"
    if item["type"] == "missing":
        return f"{where}: missing"
    message = item["msg"].removeprefix("Value error, ")
    value = item["input"]
    if isinstance(value, dict):  # a whole section: the message says which keys disagree
        return f"{where}: {message}"
    if item["type"] == "literal_error":
        expected = [
            part.strip(" '") for part in item["ctx"]["expected"].replace(" or ", ",").split(",")
        ]
        return f"{where}: {message}, got {value!r}{_suggestion(str(value), expected, listed=True)}"
    # Messages of our own may hold what came; in pydantic's it would be a limit that looks like it.
    said = item["type"] == "value_error" and repr(value) in message
    got = "" if said else f", got {value!r}"
    return f"{where}: {message}{got}"


def _suggestion(word: str, known: list[str], *, listed: bool = False) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean `{close[0]}`?"
    return "" if listed or not known else f"; known here: {', '.join(known)}"

"""Writing run.yaml: every key of the configuration, with its value and what it means."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from pydantic import BaseModel

from pymlp.config.models import RunConfig

__all__ = ["render"]

_COMMENT_COLUMN = 34
_WIDTH = 100
_ORDER = ("kind", "elements", "data", "descriptor", "network", "training", "gaussian_process")


def render(config: RunConfig, notes: dict[str, list[str]] | None = None) -> str:
    """Return the configuration as commented YAML that `load_config` reads back unchanged.

    :param notes: lines of comment to put above a key, by dotted name (``"data.target"``); those
        under ``""`` head the file
    """
    notes = notes or {}
    lines = [f"# {line}" if line else "#" for line in notes.get("", [])]
    if lines:
        lines.append("")
    lines += _section(config, 0, "", notes)
    return "\n".join(lines) + "\n"


def _section(model: BaseModel, depth: int, prefix: str, notes: dict[str, list[str]]) -> list[str]:
    pad = "  " * depth
    lines: list[str] = []
    fields = type(model).model_fields
    # Fields of a base class come first in pydantic's order; the file has data -> network order.
    for name in sorted(fields, key=_ORDER.index) if depth == 0 else fields:
        field = fields[name]
        value = getattr(model, name)
        for note in notes.get(prefix + name, []):
            hang = " " * (len(note) - len(note.lstrip()))
            width = _WIDTH - 2 - len(pad)
            wrapped = textwrap.wrap(note, width, subsequent_indent=hang)
            lines += [f"{pad}# {part}" for part in wrapped]
        if isinstance(value, BaseModel):
            if depth == 0:
                lines.append("")
            summary = (type(value).__doc__ or "").strip().splitlines()[0].rstrip(".")
            lines.append(_commented(f"{pad}{name}:", summary))
            lines += _section(value, depth + 1, f"{prefix}{name}.", notes)
        elif isinstance(value, list) and value and isinstance(value[0], (list, tuple)):
            lines.append(_commented(f"{pad}{name}:", field.description))
            lines += [f"{pad}  - {_flow(row)}" for row in value]
        else:
            lines.append(_commented(f"{pad}{name}: {_flow(value)}", field.description))
    return lines


def _commented(text: str, comment: str | None) -> str:
    if not comment:
        return text
    one_line = f"{text:<{_COMMENT_COLUMN}} # {comment}"
    if len(one_line) <= _WIDTH:
        return one_line
    # A long value keeps its comment on the line above it.
    pad = text[: len(text) - len(text.lstrip())]
    wrapped = textwrap.wrap(comment, _WIDTH - 2 - len(pad))
    if len(wrapped) == 1 and len(text) > _COMMENT_COLUMN:
        return "\n".join([f"{pad}# {wrapped[0]}", *_wrapped_flow(text)])
    return "\n".join([*(f"{pad}# {part}" for part in wrapped), *_wrapped_flow(text)])


def _wrapped_flow(text: str) -> list[str]:
    """Break a long flow list at commas; YAML reads the pieces as one list."""
    if len(text) <= _WIDTH or "[" not in text:
        return [text]
    return textwrap.wrap(
        text,
        _WIDTH,
        subsequent_indent=" " * (text.index("[") + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _flow(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # YAML 1.2 takes 1e-3 for a number only with a point or sign; repr of small floats has both.
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _string(str(value))


def _string(text: str) -> str:
    from ruamel.yaml import YAML

    # Quote whatever plain YAML would not read back as the same string ("null", "no: 1", "1e3").
    plain_ok = False
    if text and "\n" not in text and not any(c in text for c in "#,[]{}&*!|>'\"%@`"):
        try:
            plain_ok = YAML(typ="safe").load(f"key: {text}") == {"key": text}
        except Exception:
            plain_ok = False
    return text if plain_ok else json.dumps(text, ensure_ascii=False)

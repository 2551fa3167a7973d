"""YAML files as plain data: no tags that make objects, of bounded size and depth, and no line repeated in an error."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import yaml

from pipeline import secrets
from pipeline.images import read_file

MOST_BYTES = 1 << 22
MOST_BRACKETS = 100
"""Open at once; the parser's time grows with their square."""


def read_yaml(path: Path, references: bool = True) -> Any:
    """What a YAML file says.

    Args:
        references: whether it may refer to a part of itself (`*name`); nested ones stand for more than memory holds.

    Raises:
        OSError, ValueError: why it can't be read; no line of it is repeated, for it may hold a key by mistake.
    """
    try:
        return parse_yaml(read_file(path, MOST_BYTES).decode("utf-8-sig"), references)
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8") from None


def parse_yaml(text: str, references: bool = True) -> Any:
    """The same of a text.

    Raises:
        ValueError: why it can't be read.
    """
    steps = ({"[": 1, "{": 1, "]": -1, "}": -1}[c] for c in text if c in "[]{}")
    if max(itertools.accumulate(steps), default=0) > MOST_BRACKETS:
        raise ValueError("it is nested too deeply")
    try:
        if not references and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it holds a reference (*name): write out what it refers to")
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = secrets.KEYS.sub("***", error.problem or error.context or "it can't be parsed")
        raise ValueError(f"it is not YAML: {problem}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {getattr(error, 'reason', 'a character has no place in it')}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply, or contains itself") from None

"""The proposer that reads a list somebody wrote by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, nearest
from pipeline.images import read_file
from pipeline.models.fingerprints import of_options
from pipeline.models.protocols import Attribute, Proposals
from pipeline.models.words import clean, guess_type
from pipeline.places import Place
from pipeline.records import CUE_TYPES
from pipeline.yaml_file import MOST_BYTES, read_yaml

EVERY_CLASS = "*"


class ListProposer:
    """See `list_proposer`."""

    def __init__(self, by_class: dict[str, list[Attribute]], where: str) -> None:
        self.by_class, self.where = by_class, where
        self.contrast = None
        content = {name: [(a.phrase, a.cue_type) for a in attributes] for name, attributes in by_class.items()}
        self.fingerprint = of_options("list", content)

    def propose(self, class_name: str, classes: Sequence[str], captions: dict[str, Sequence[str]]) -> Proposals:
        """The attributes written for the class, then those for every class, each once.

        Raises:
            UserError: the list holds a class that the data doesn't have.
        """
        for name in self.by_class:
            if name != EVERY_CLASS and name not in classes:
                raise UserError(f"{self.where}: there is no class '{name}' in the data. {nearest(name, classes)}")
        found: dict[str, Attribute] = {}
        for attribute in [*self.by_class.get(class_name, ()), *self.by_class.get(EVERY_CLASS, ())]:
            found.setdefault(attribute.phrase.lower(), attribute)
        return Proposals(tuple(found.values()))


def list_proposer(
    seed: int,
    cache: Place,
    *,
    attributes: dict[str, list[str]] | list[str] | None = None,
    path: str | None = None,
) -> ListProposer:
    """Attributes from the configuration or a file.

    Args:
        seed, cache: unused; every proposer is given them. attributes: a list for every class, or a list a
        class ("*" stands for every class). An item is a phrase,
            or "phrase | Type" with one of the nine types; without one the type is guessed from the words.
        path: a YAML file with the same, or a text file with an item a line ("#" starts a comment).

    Raises:
        UserError: neither or both given, no such file, not a list, an unknown type.
    """
    if (attributes is None) == (path is None):
        raise UserError("propose: the back end 'list' needs one of 'attributes' and 'path'.")
    where, content = (path, _read(Path(path))) if path is not None else ("propose.attributes", attributes)
    if isinstance(content, list):
        content = {EVERY_CLASS: content}
    if not isinstance(content, dict) or not all(isinstance(items, list) for items in content.values()):
        raise UserError(f"{where}: expected a list of attributes, or a list for each class.")
    by_class = {str(name): [_attribute(item, where) for item in items] for name, items in content.items()}
    return ListProposer(by_class, where)


def _read(path: Path) -> Any:
    try:
        if path.suffix.lower() in (".yaml", ".yml", ".json"):
            return read_yaml(path, references=False)
        text = read_file(path, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"The list of attributes {path} can't be read: it is not in UTF-8.") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"The list of attributes {path} can't be read: {why}.") from None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _attribute(item: Any, where: str) -> Attribute:
    phrase, _, named = str(item).partition("|")
    phrase, named = clean(phrase), named.strip()
    if not phrase or not isinstance(item, str):
        raise UserError(f"{where}: '{item}' is no attribute: expected a phrase, or 'phrase | Type'.")
    by_name = {cue_type.lower(): cue_type for cue_type in CUE_TYPES}
    if named and named.lower() not in by_name:
        raise UserError(f"{where}: '{named}' of '{phrase}' is no type of cue. {nearest(named, CUE_TYPES)}")
    return Attribute(phrase, by_name[named.lower()] if named else guess_type(phrase), f"listed in {where}")

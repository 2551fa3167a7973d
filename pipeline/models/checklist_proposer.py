"""The proposer that needs neither captions nor a language model: a checklist of the nine types of cues.

It asks of every class what is worth asking of any: the measured properties, the looks that have a name, the commonest
places, and what is laid over pictures. What the model doesn't lean on drops out by evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.errors import UserError
from pipeline.models.fingerprints import of_options
from pipeline.models.protocols import Attribute, Proposals, Proposer
from pipeline.models.words import WHOLE_IMAGE, names_class
from pipeline.places import Place
from pipeline.properties import PROPERTY_CUES
from pipeline.records import CUE_TYPES, CueType

_PLACES = ("indoor scene", "outdoor scene", "sky", "water", "grass", "snow", "forest", "street", "plain background")
_COMPANY = ("person", "hand", "watermark", "caption", "logo", "border", "ruler")
_SAME_AS_MEASURED = frozenset({"dark lighting", "bright lighting"})


def _checklist() -> dict[str, tuple[str, ...]]:
    by_type: dict[str, list[str]] = {name: [] for name in CUE_TYPES}
    by_type["Background"] += _PLACES
    by_type["Co-occurring Objects"] += _COMPANY
    for name, cue in PROPERTY_CUES.items():
        by_type[cue.cue_type].append(name)
    for cue_type, phrase in WHOLE_IMAGE.values():
        if phrase not in _SAME_AS_MEASURED:
            by_type[cue_type].append(phrase)
    return {name: tuple(dict.fromkeys(phrases)) for name, phrases in by_type.items()}


CHECKLIST = _checklist()
"""What is asked of every class, by type of cue."""


class ChecklistProposer:
    """See `checklist_proposer`."""

    contrast: Proposer | None = None

    def __init__(self, types: Sequence[str]) -> None:
        self.types = tuple(name for name in CUE_TYPES if name in types)
        self.fingerprint = of_options("checklist", {name: CHECKLIST[name] for name in self.types})

    def propose(self, class_name: str, classes: Sequence[str], captions: Mapping[str, Sequence[str]]) -> Proposals:
        """The checklist without what names the class itself."""
        return Proposals(
            tuple(
                Attribute(phrase, name, "on the checklist of every class")
                for name in self.types
                for phrase in CHECKLIST[name]
                if not names_class(phrase, class_name)
            )
        )


def checklist_proposer(seed: int, cache: Place, *, types: list[CueType] | None = None) -> ChecklistProposer:
    """The checklist of the nine types of MM-SpuBench.

    Args:
        seed, cache: unused; every proposer is given them.
        types: only these types; by default all nine.
    """
    if types == []:
        raise UserError("propose: the back end 'checklist' needs at least one of the types.")
    return ChecklistProposer(types or CUE_TYPES)

"""Which outputs of a classifier count for which class of the audit: by name, or as the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError, nearest
from pipeline.models.protocols import Floats

Mapped = str | int | list[str | int]
"""One label of the model or several, by name or by number."""


@dataclass(frozen=True)
class Labels:
    """For each class of the audit the numbers of the outputs that count for it."""

    outputs: tuple[tuple[int, ...], ...]

    def logits(self, raw: Floats) -> Floats:
        """(n, outputs) of the model as (n, classes): log of the summed exponentials, as probabilities add up.

        Outputs that count for no class are left out, as if the answer were known to be one of the classes.

        Raises:
            UserError: a number that isn't finite, as half precision gives where it overflows.
        """
        if not np.isfinite(raw).all():
            raise UserError("model: it answers with numbers that aren't finite. Try precision: fp32.")
        columns = [np.logaddexp.reduce(raw[:, list(mine)], axis=1) for mine in self.outputs]
        return np.stack(columns, axis=1).astype(np.float32)


def match(classes: Sequence[str], outputs: Sequence[Sequence[str]], mapping: Mapping[str, Mapped]) -> Labels:
    """The outputs of each class: those that `mapping` lists for it, else the one of the class's name.

    Names are compared without case, and with `_` and `-` as spaces; of a label such as "tench, Tinca tinca" the
    whole and each part are names.

    Args:
        classes: the audit's.
        outputs: for each output of the model its names.
        mapping: a class of the audit to labels of the model.

    Raises:
        UserError: a class without an output, a name that is none or more than one, or an output of two classes.
    """
    ours = {_plain(name): name for name in classes}
    asked: dict[str, Mapped] = {}
    for name, listed in mapping.items():
        if _plain(name) not in ours:
            raise UserError(f"model: mapping names '{name}', which is no class of the audit. {nearest(name, classes)}")
        asked[ours[_plain(name)]] = listed
    found: list[tuple[int, ...]] = []
    owner: dict[int, str] = {}
    for name in classes:
        listed = asked.get(name, name)
        mine = tuple(_find(label, name, outputs) for label in (listed if isinstance(listed, list) else [listed]))
        if not mine:
            raise UserError(f"model: mapping lists no label for the class '{name}'.")
        for number in mine:
            if number in owner:
                twice = f"the classes '{owner[number]}' and '{name}'" if owner[number] != name else f"'{name}' twice"
                raise UserError(f"model: the model's label '{outputs[number][0]}' would count for {twice}.")
            owner[number] = name
        found.append(mine)
    return Labels(tuple(found))


def named(labels: Sequence[str], known: Sequence[Sequence[str]] | None, count: int | None) -> list[tuple[str, ...]]:
    """The names of a model's outputs: the user's `labels` if given, else what the model says.

    Args:
        labels: one name an output, or nothing.
        known: what the model says; None where it doesn't.
        count: how many outputs the model has; None where that isn't known yet.

    Raises:
        UserError: nobody names them, or there are more or fewer labels than outputs.
    """
    if not labels and known is None:
        has = f"its {count} outputs" if count else "its outputs"
        raise UserError(f"model: the model doesn't name {has}. List their names, in order, in the option 'labels'.")
    if labels and count is not None and len(labels) != count:
        raise UserError(f"model: the model has {count} outputs, but 'labels' lists {len(labels)}.")
    return [(label,) for label in labels] if labels else [tuple(names) for names in known or ()]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _find(label: str | int, name: str, outputs: Sequence[Sequence[str]]) -> int:
    """The number of the one output called `label`."""
    if isinstance(label, int):
        if not 0 <= label < len(outputs):
            raise UserError(f"model: mapping gives '{name}' the output {label}; there are 0 to {len(outputs) - 1}.")
        return label
    wanted = _plain(label)
    whole = [number for number, names in enumerate(outputs) if wanted in map(_plain, names)]
    parts = [n for n, names in enumerate(outputs) if wanted in (_plain(p) for text in names for p in text.split(","))]
    hits = whole or parts
    if len(hits) > 1:
        numbers = " and ".join(str(number) for number in hits)
        raise UserError(f"model: more than one output is called '{label}' ({numbers}). Map '{name}' to a number.")
    if not hits:
        who = f"the class '{name}'" if label == name else f"'{label}', which mapping lists for '{name}',"
        hint = nearest(label, {text for names in outputs for text in names})
        raise UserError(
            f"model: {who} is none of the model's {len(outputs)} labels. {hint} "
            f"The option 'mapping' says which of them count: mapping: {{{name}: [...]}}"
        )
    return hits[0]

"""Several proposers as one: what each lists, once, with the names of all that listed it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator

from pipeline.errors import UserError
from pipeline.models import registry
from pipeline.models.fingerprints import of_options
from pipeline.models.ledger import Ledger
from pipeline.models.openai_client import Estimate
from pipeline.models.protocols import Attribute, Proposals, Proposer
from pipeline.models.words import normalise
from pipeline.places import Place


def _check(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not members:
        raise UserError("propose: the back end 'union' needs at least one member.")
    for member in members:
        options = dict(member)
        kind = options.pop("kind", None)
        if not isinstance(kind, str):
            raise UserError("propose: each member of 'union' needs a 'kind', such as captions or openai.")
        registry.check_options("propose", kind, options)
    return members


def union_proposer(
    seed: int,
    cache: Place,
    ledger: Ledger | None = None,
    *,
    members: Annotated[list[dict[str, Any]], AfterValidator(_check)],
) -> UnionProposer:
    """The attributes of several proposers.

    Args:
        seed, cache, ledger: for the members.
        members: sections as of a single proposer, each with its `kind` and options, asked in this order.

    Raises:
        UserError: no member, an unknown one, or one with wrong options.
    """
    made = []
    for member in members:
        options = dict(member)
        kind = options.pop("kind")
        checked = registry.check_options("propose", kind, options)
        given = {"cache": cache, "ledger": ledger}
        asked = registry.further("propose", kind)
        if unknown := [name for name in asked if name not in given]:
            raise UserError(f"propose: '{kind}' asks for the audit's {unknown[0]} and can't be a member of 'union'.")
        more = {name: given[name] for name in asked}
        made.append((kind, registry.factory("propose", kind)(seed, **more, **checked)))
    return UnionProposer(made)


class UnionProposer:
    """See `union_proposer`."""

    def __init__(self, members: Sequence[tuple[str, Proposer]]) -> None:
        self.members = list(members)
        self.fingerprint = of_options("union", {"members": [(kind, m.fingerprint) for kind, m in self.members]})

    @property
    def contrast(self) -> Proposer | None:
        """The members that may be asked for another contrast."""
        contrasts = ((kind, getattr(member, "contrast", None)) for kind, member in self.members)
        able = [(kind, contrast) for kind, contrast in contrasts if contrast is not None]
        return UnionProposer(able) if able else None

    def propose(self, class_name: str, classes: Sequence[str], captions: Mapping[str, Sequence[str]]) -> Proposals:
        """Each attribute once, in the order of the members: type and reason are the first's, `source` names all."""
        found: dict[str, Attribute] = {}
        calls = tokens = dropped = 0
        stopped = []
        for kind, member in self.members:
            proposals = member.propose(class_name, classes, captions)
            calls, tokens, dropped = (
                calls + proposals.calls, tokens + proposals.tokens, dropped + proposals.dropped
            )  # fmt: skip
            stopped += [proposals.stopped] if proposals.stopped else []
            for attribute in proposals.attributes:
                key = normalise(attribute.phrase)
                first = found.setdefault(key, replace(attribute, source=""))
                score = attribute.score if math.isnan(first.score) else first.score
                found[key] = replace(first, score=score, source=also(first.source, attribute.source or kind))
        return Proposals(tuple(found.values()), calls, tokens, dropped, "; ".join(stopped))

    def ahead(self, class_names: Sequence[str], captions: Mapping[str, Sequence[str]]) -> None:
        """Let the members that ask ahead do so."""
        for _, member in self.members:
            if hasattr(member, "ahead"):
                member.ahead(class_names, captions)

    def estimate(self, class_names: Sequence[str], captions: Mapping[str, Sequence[str]]) -> Estimate:
        """The members' estimates together."""
        parts = [m.estimate(class_names, captions) for _, m in self.members if hasattr(m, "estimate")]
        prices = [part.usd for part in parts]
        usd = None if None in prices else sum(price for price in prices if price is not None)
        return Estimate(sum(part.calls for part in parts), sum(part.tokens for part in parts), usd)


def also(sources: str, more: str) -> str:
    """Names of proposers joined, each once: ("captions", "openai") is "captions, openai"."""
    names = [name for text in (sources, more) for name in text.split(", ") if name]
    return ", ".join(dict.fromkeys(names))

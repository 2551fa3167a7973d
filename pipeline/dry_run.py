"""What an audit would take, before anything is asked or computed: calls, tokens, money, model forwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Audit
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.json_text import json_text
from pipeline.models.openai_client import Estimate
from pipeline.models.protocols import RecordedAnswers, YesNoModel
from pipeline.places import Place
from pipeline.store import AuditFolder

CAPTION = "A photo of a thing next to another thing on a surface, somewhere."
"""Stands for captions that aren't written yet."""
CAPTIONS = 20
NOTHING = 5
"""Four blank pictures, and none."""


@dataclass(frozen=True)
class Planned:
    """One line of a dry run: at most so many forwards of a model on this machine, or calls of a paid service."""

    stage: str
    what: str
    forwards: int = 0
    cost: Estimate | None = None


def plan_audit(audit: Audit, out: Place) -> list[Planned]:
    """Every stage that a model works in, without any cached answer; nothing is asked, computed or written.

    Raises:
        UserError: the data or a model isn't there.
    """
    found = Counter(label for item in Context(audit, AuditFolder(out)).source for label in item.labels)
    labels = audit.classes or sorted(found)
    images = sum(found[label] for label in labels)
    if not images:
        raise UserError("data: there are no images of these classes.")
    context = Context(audit.model_copy(update={"classes": labels}), AuditFolder(out))
    planned = [_images("predict", "the model under test", context.model, images)]
    if context.captioner is not None:
        planned.append(_images("caption", "captions", context.captioner, images))
    if hasattr(context.proposer, "estimate"):
        words = [audit.words(label) for label in labels]
        captions = {word: [CAPTION] * CAPTIONS for word in words} if context.captioner is not None else {}
        planned.append(Planned("propose", "the language model", cost=context.proposer.estimate(words, captions)))
    for stage, what, back_end in (("detect", "the detector", context.detector), ("embed", "regions", context.encoder)):
        if back_end is not None:
            planned.append(_images(stage, what, back_end, images))
    planned += _own_pictures(context, found)
    if audit.ablate.enabled:
        what, model = "the model under test, edited images", context.model
        planned.append(_images("ablate", what, model, audit.ablate.budget, **_one_class(model)))
    return planned


def _own_pictures(context: Context, found: Counter[str]) -> list[Planned]:
    """What a multimodal LLM is shown beside the data: nothing, and pictures with their object masked or removed."""
    model, most = context.model, context.audit.measure.absent
    if not isinstance(model, YesNoModel) or isinstance(model, RecordedAnswers):
        return []
    planned = [_images("measure", "the model under test, shown nothing", model, NOTHING)]
    if context.detector is not None and most:
        own = 2 * sum(min(found[label], most) for label in context.classes)
        what = "the model under test, objects masked or removed"
        planned.append(_images("measure", what, model, own, **_one_class(model)))
    return planned


def _one_class(model: object) -> dict[str, Any]:
    """A model that says Yes or No is asked about the class alone that an edit is for, by the prompts that count."""
    return {"every": False, "classes": 1} if isinstance(model, YesNoModel) else {}


def _images(stage: str, what: str, back_end: object, images: int, **asked: Any) -> Planned:
    estimate = getattr(back_end, "estimate", None)
    cost = estimate(images, **asked) if estimate is not None else None
    return Planned(stage, what, images, cost if cost is not None and cost.calls else None)


def together(planned: list[Planned]) -> Estimate:
    """The sum of all calls; `usd` is None if any has no price."""
    costs = [line.cost for line in planned if line.cost is not None and line.cost.calls]
    prices = [cost.usd for cost in costs]
    usd = None if None in prices else sum(price for price in prices if price is not None)
    return Estimate(sum(cost.calls for cost in costs), sum(cost.tokens for cost in costs), usd)


def print_plan(audit: Audit, out: Place, *, as_json: bool = False) -> None:
    """Show a dry run in the terminal, or as JSON."""
    planned = plan_audit(audit, out)
    if as_json:
        return print(json_text({"stages": [asdict(line) for line in planned], "together": asdict(together(planned))}))
    from rich.console import Console
    from rich.table import Table

    shown = Table(
        "stage", "what", "images", "calls", "tokens", "US dollars", title="Dry run: at most", title_justify="left"
    )
    for line in planned:
        shown.add_row(line.stage, line.what, f"{line.forwards:,}" if line.forwards else "", *_cells(line.cost))
    shown.add_row("", "together", f"{sum(line.forwards for line in planned):,}", *_cells(together(planned)))
    console = Console()
    console.print(shown)
    console.print(
        "Nothing was asked or computed. What is in the cache costs nothing; a budget stops before it is exceeded."
    )


def _cells(cost: Estimate | None) -> tuple[str, str, str]:
    if cost is None or not cost.calls:
        return "", "", ""
    return f"{cost.calls:,}", f"{cost.tokens:,}", "no price given" if cost.usd is None else f"{cost.usd:.2f}"

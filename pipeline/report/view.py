"""A finding as the page shows it: sentence, plots, evidence and numbers, worked out before the layout."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.report import sentences
from pipeline.report.beside import Heat, Quotes
from pipeline.report.data import ReportData, Rows, Triple
from pipeline.report.plots import Plot, Scale, plot
from pipeline.report.sentences import number, of_100

Row = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """An evidence image with the cue's boxes in percent of its size: x, y, width, height."""

    image_id: str
    alt: str
    path: str
    boxes: tuple[tuple[float, float, float, float], ...]
    width: int
    height: int


@dataclass(frozen=True)
class FindingView:
    """A finding as the page shows it."""

    row: Row
    slug: str
    cue: str
    proposed_as: str  # the cue's own name where people call it another
    label: str
    sentence: str
    harm: str
    plots: tuple[Plot, ...]
    evidence: tuple[Evidence, ...]
    triples: tuple[Triple, ...]
    heat: Heat | None
    heat_text: str
    montage: str
    quotes: Quotes | None
    facts: tuple[tuple[str, str, str], ...]
    origin: str
    operator: str
    sort: dict[str, float]
    search: str

    @property
    def legend(self) -> list[tuple[int, str]]:
        """The shape of each fill that has a dot in the plots."""
        return sorted({(mark.shape, mark.fill) for plot in self.plots for mark in plot.marks})


def finding_views(data: ReportData, scale: Scale) -> list[FindingView]:
    """Every finding, in the order given."""
    effects: dict[tuple[str, str], Rows] = defaultdict(list)
    for row in data.effects:
        effects[row["finding_id"], row["direction"]].append(row)
    fills = sorted({row["fill"] for row in data.effects})
    triples: dict[str, list[Triple]] = defaultdict(list)
    for triple in data.triples:
        triples[triple.finding_id].append(triple)
    proposed = {(row["label"], row["phrase"]): row for row in data.attributes}
    cues = {row["cue_id"]: row for row in data.cues}
    return [
        _finding(i, row, data, scale, effects, fills, triples[row["finding_id"]], proposed, cues)
        for i, row in enumerate(data.findings)
    ]


def _finding(
    index: int,
    row: Row,
    data: ReportData,
    scale: Scale,
    effects: dict[tuple[str, str], Rows],
    fills: list[str],
    triples: list[Triple],
    proposed: dict[tuple[str, str], Row],
    cues: dict[str, Row],
) -> FindingView:
    operator = cues.get(row["cue_id"], {}).get("operator") or ""
    cue, label = sentences.words(sentences.called(row)), sentences.words(row["class"])
    names = {"removal": "cue removed", "insertion": "cue inserted"}
    plots = (plot(row, d, names[d], scale, effects[row["finding_id"], d], fills) for d in names)
    said = sentences.sentence(row, operator)
    heat = data.beside.heats.get(row["finding_id"])
    return FindingView(
        row=row,
        slug=f"f{index}",
        cue=cue,
        proposed_as=sentences.words(row["cue"]) if row.get("called") else "",
        label=label,
        sentence=said,
        harm=sentences.harm(row),
        plots=tuple(line for line in plots if line),
        evidence=tuple(_evidence(row, cue, data)),
        triples=tuple(triples),
        heat=heat,
        heat_text=heat_text(heat, cue, label) if heat else "",
        montage=data.montages.get(row["cue_id"], ""),
        quotes=data.beside.quotes.get(row["finding_id"]),
        facts=tuple(facts(row)),
        origin=origin(row, proposed.get((row["class"], row["cue"]))),
        operator=operator,
        sort={
            "harm": worst_last(row["harm"]),
            "removal": worst_last(row["removal_effect"]),
            "insertion": worst_last(row["insertion_effect"]),
            "q": -worst_last(-number(row["q"])),
        },
        search=" ".join(
            text or "" for text in (cue, row["cue"], label, row["cue_type"], row["verdict"], row["kind"], row["source"])
        ).lower(),
    )


def heat_text(heat: Heat, cue: str, label: str) -> str:
    """A heat map in words."""
    pictures = "1 picture" if heat.images == 1 else f"{heat.images} pictures"
    return f"{cue}: {heat.place}, in {of_100(heat.most)} of 100 where it is most often; {pictures} of {label}"


def worst_last(value: Any) -> float:
    value = number(value)
    return value if math.isfinite(value) else -9.0


def _evidence(row: Row, cue: str, data: ReportData) -> Iterable[Evidence]:
    boxes = row["evidence_boxes"] or []
    for position, image_id in enumerate(row["evidence_ids"] or []):
        if image_id not in data.thumbs:
            continue
        image = data.images.get(image_id, {})
        own = boxes[position] if position < len(boxes) else []
        percent = tuple((100 * b[0], 100 * b[1], 100 * (b[2] - b[0]), 100 * (b[3] - b[1])) for b in own or [])
        what = sentences.words(image.get("label") or row["class"])
        where = f", {cue} boxed" if percent else f", with {cue}"
        yield Evidence(
            image_id,
            f"{what}{where}",
            image.get("path", ""),
            percent,
            image.get("width", 1),
            image.get("height", 1),
        )


def facts(row: Row) -> Iterable[tuple[str, str, str]]:
    """The numbers of a finding: what, value, how to read it."""

    def span(name: str, digits: int = 0) -> str:
        value, low, high = (number(row[name + end]) for end in ("", "_lower", "_upper"))
        if digits:
            bounds = f" ({sentences.decimal(low)} to {sentences.decimal(high)})" if math.isfinite(low + high) else ""
            return sentences.decimal(value) + bounds
        return f"{of_100(value, True)} {sentences.interval(low, high)}".strip()

    def count(name: str) -> str:
        return f"{int(number(row[name])):,}" if math.isfinite(number(row[name])) else sentences.DASH

    def sample(direction: str) -> str:
        stopped = f"; {row[direction + '_stopped']}" if row[direction + "_stopped"] else ""
        return f"{count(direction + '_n')} images, p {sentences.small(row[direction + '_p'])}{stopped}"

    yield (
        "Expected harm",
        sentences.harm(row).replace(" of 100 predictions", ""),
        "predictions of 100 that would change if the cue no longer went with the class",
    )
    yield (
        "Removal effect",
        span("removal_effect"),
        f"of 100 images of the class, less placebo; {sample('removal')}",
    )
    yield (
        "Insertion effect",
        span("insertion_effect"),
        f"of 100 other images, less placebo; {sample('insertion')}",
    )
    yield (
        "Dose of the cue",
        f"{of_100(number(row['removal_dose']))} by removal, {of_100(number(row['insertion_dose']))} by insertion",
        "of 100: how much of what separates pictures with the cue from those without the edits moved, beyond their "
        "placebos, as the region encoder sees it; the two effects are scaled to all of it",
    )
    yield (
        "Removal, in score",
        of_100(number(row["removal_score_effect"]), True),
        "fall of the class's score as edited, in points of 100",
    )
    yield (
        "Insertion, in score",
        of_100(number(row["insertion_score_effect"]), True),
        "rise of the class's score as edited, in points of 100",
    )
    yield (
        "Spread among fills",
        of_100(number(row["fill_spread"])),
        "largest less smallest removal effect; large: the fill matters, not only the cue",
    )
    yield (
        "Smallest visible effect",
        of_100(number(row["smallest_effect"])),
        "of 100: a smaller one would have gone unseen more than one time in five",
    )
    yield (
        "q",
        sentences.small(row["q"]),
        f"false-discovery rate at which this would count; p {sentences.small(row['p'])}",
    )
    yield "Accuracy gap", span("pa_gap"), "hits of 100 with the cue, less without (observed, no edit)"
    yield (
        "False-alarm gap",
        span("hr_gap"),
        "false alarms of 100 other images with the cue, less without (observed)",
    )
    yield (
        "Accuracy gap, top K",
        of_100(number(row["pa_gap_top_k"]), True),
        f"SpurLens; the best of as many random cues: {of_100(number(row['null_pa_gap_top_k']), True)}",
    )
    yield (
        "False-alarm gap, top K",
        of_100(number(row["hr_gap_top_k"]), True),
        f"SpurLens; the best of as many random cues: {of_100(number(row['null_hr_gap_top_k']), True)}",
    )
    if math.isfinite(number(row["ravl_gap"])):
        yield (
            "RaVL gap",
            sentences.decimal(row["ravl_gap"]),
            f"weighted accuracy gap of the cluster; influence {sentences.decimal(row['ravl_influence'])}",
        )
    yield (
        "Log odds ratio",
        span("log_odds_ratio", 2),
        f"cue and class in the data; Cramér's V {sentences.decimal(row['cramers_v'])}",
    )
    yield (
        "Seen with the class",
        of_100(number(row["prevalence_class"])),
        f"of 100 images of the class; {of_100(number(row['prevalence_other']))} of 100 others",
    )
    yield "Images, class", f"{count('n_class_with')} / {count('n_class_without')}", "with / without the cue"
    yield "Images, others", f"{count('n_other_with')} / {count('n_other_without')}", "with / without the cue"
    yield (
        "Overlap with the object",
        of_100(number(row["object_overlap"])),
        "of 100 parts of the cue's boxes lie in the class's own boxes",
    )


def origin(row: Row, proposal: Row | None) -> str:
    """Where a cue came from, in a sentence."""
    if row["kind"] == "unnamed":
        return "A cluster of alike regions that nobody named; its name is the nearest words."
    if proposal is None:
        return f"Source: {row['source']}." if row["source"] else ""
    reason = (proposal["reason"] or "").strip().rstrip(".")
    return f"Proposed by {proposal['source']}" + (f": {reason}." if reason else ".")


def was_tested(row: Row) -> bool:
    """Whether either experiment of a finding was made."""
    return any(math.isfinite(number(row[f"{direction}_effect"])) for direction in ("removal", "insertion"))

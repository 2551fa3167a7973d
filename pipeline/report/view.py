"""What the page shows, worked out before it is laid out: class cards, the overview matrix, findings with their plots."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.report import sentences
from pipeline.report.data import ReportData, Rows, Triple
from pipeline.report.sentences import number, of_100

Row = dict[str, Any]

MATRIX_COLUMNS = 24  # most cues of the overview: more can't be read
LEVELS = (0.02, 0.05, 0.10, 0.20, 0.35)  # effect sizes at which a cell's colour deepens


@dataclass(frozen=True)
class Mark:
    """A dot of an interval plot: where it lies (percent of the width), its shape, what it says."""

    x: float
    shape: int
    text: str


@dataclass(frozen=True)
class Plot:
    """One line of an interval plot; positions in percent of its width."""

    name: str
    start: float
    end: float
    point: float
    number: str
    bounds: str
    n: int
    clear: bool  # the interval leaves out zero
    text: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Scale:
    """The common scale of all interval plots, so that they compare at a glance."""

    low: float
    high: float

    def __call__(self, share: float) -> float:
        return round(100 * (min(max(share, self.low), self.high) - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        step = next(s for s in (0.1, 0.2, 0.25, 0.5) if (self.high - self.low) / s <= 7 or s == 0.5)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self(i * step), of_100(i * step, signed=True)) for i in range(first, last + 1)]


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
    label: str
    sentence: str
    harm: str
    plots: tuple[Plot, ...]
    evidence: tuple[Evidence, ...]
    triples: tuple[Triple, ...]
    facts: tuple[tuple[str, str, str], ...]
    origin: str
    operator: str
    sort: dict[str, float]
    search: str


@dataclass(frozen=True)
class ClassCard:
    """What the audit says of one class."""

    label: str
    name: str
    images: int | None
    state: str  # leaning | clean | undecided | untested
    headline: str
    text: str
    counts: tuple[tuple[str, int], ...]
    first: FindingView | None


@dataclass(frozen=True)
class Cell:
    """One (class, cue) of the overview."""

    slug: str
    verdict: str
    removal: tuple[str, str]  # number, colour level
    insertion: tuple[str, str]
    text: str


@dataclass(frozen=True)
class Matrix:
    """Classes by cues; a cell is None where the pair was not tested."""

    cues: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    left_out: int


def scale_of(data: ReportData) -> Scale:
    """From the smallest to the largest bound or fill of any finding, in tenths, at least -10 to 30 of 100."""
    values = [number(row[f"{d}_effect{end}"]) for row in data.findings for d in ("removal", "insertion") for end in ("", "_lower", "_upper")]
    values += [number(row["estimate"]) for row in data.effects]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([-0.1, *finite]), max([0.3, *finite])
    return Scale(max(-1.0, math.floor(low * 10 + 1e-9) / 10), min(1.0, math.ceil(high * 10 - 1e-9) / 10))


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
    return [_finding(i, row, data, scale, effects, fills, triples[row["finding_id"]], proposed, cues) for i, row in enumerate(data.findings)]


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
    cue, label = sentences.words(row["cue"]), sentences.words(row["label"])
    names = {"removal": "cue removed", "insertion": "cue inserted"}
    plots = (_plot(row, d, names[d], scale, effects[row["finding_id"], d], fills) for d in names)
    said = sentences.sentence(row, operator)
    return FindingView(
        row=row,
        slug=f"f{index}",
        cue=cue,
        label=label,
        sentence=said,
        harm=sentences.harm(row),
        plots=tuple(plot for plot in plots if plot),
        evidence=tuple(_evidence(row, cue, data)),
        triples=tuple(triples),
        facts=tuple(facts(row)),
        origin=origin(row, proposed.get((row["label"], row["cue"]))),
        operator=operator,
        sort={
            "harm": _worst_last(row["harm"]),
            "removal": _worst_last(row["removal_effect"]),
            "insertion": _worst_last(row["insertion_effect"]),
            "q": -_worst_last(-number(row["q"])),
        },
        search=" ".join([cue, label, row["cue_type"] or "", row["verdict"], row["kind"], row["source"] or ""]).lower(),
    )


def _worst_last(value: Any) -> float:
    value = number(value)
    return value if math.isfinite(value) else -9.0


def _plot(row: Row, direction: str, name: str, scale: Scale, fills: Rows, all_fills: list[str]) -> Plot | None:
    effect, low, high = (number(row[f"{direction}_effect{end}"]) for end in ("", "_lower", "_upper"))
    if not math.isfinite(effect):
        return None
    low, high = (effect if not math.isfinite(bound) else bound for bound in (low, high))
    bounds = sentences.interval(number(row[f"{direction}_effect_lower"]), number(row[f"{direction}_effect_upper"]))
    marks = tuple(
        Mark(scale(fill["estimate"]), all_fills.index(fill["fill"]) % 4, f"{fill['fill']}: {of_100(fill['estimate'], True)} of 100")
        for fill in fills
    )
    text = f"{name.capitalize()}: {of_100(effect, True)} of 100 {bounds}"
    if marks:
        text += "; by fill " + ", ".join(mark.text for mark in marks)
    return Plot(
        name,
        scale(low),
        scale(high),
        scale(effect),
        of_100(effect, signed=True),
        bounds,
        int(number(row[f"{direction}_n"])) if math.isfinite(number(row[f"{direction}_n"])) else 0,
        low > 0 or high < 0,
        text,
        marks,
    )


def _evidence(row: Row, cue: str, data: ReportData) -> Iterable[Evidence]:
    boxes = row["evidence_boxes"] or []
    for position, image_id in enumerate(row["evidence_ids"] or []):
        if image_id not in data.thumbs:
            continue
        image = data.images.get(image_id, {})
        own = boxes[position] if position < len(boxes) else []
        percent = tuple((100 * b[0], 100 * b[1], 100 * (b[2] - b[0]), 100 * (b[3] - b[1])) for b in own or [])
        what = sentences.words(image.get("label") or row["label"])
        where = f", {cue} boxed" if percent else f", with {cue}"
        yield Evidence(image_id, f"{what}{where}", image.get("path", ""), percent, image.get("width", 1), image.get("height", 1))


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

    yield "Expected harm", span("harm"), "predictions of 100 that would change if the cue no longer went with the class"
    yield "Removal effect", span("removal_effect"), f"of 100 images of the class, beyond the placebo; {count('removal_n')} images, p {sentences.small(row['removal_p'])}"
    yield "Insertion effect", span("insertion_effect"), f"of 100 other images, beyond the placebo; {count('insertion_n')} images, p {sentences.small(row['insertion_p'])}"
    yield "Removal, in score", of_100(number(row["removal_score_effect"]), True), "fall of the class's score, in points of 100"
    yield "Insertion, in score", of_100(number(row["insertion_score_effect"]), True), "rise of the class's score, in points of 100"
    yield "Spread among fills", of_100(number(row["fill_spread"])), "largest less smallest removal effect; large: the fill matters, not only the cue"
    yield "Smallest visible effect", of_100(number(row["smallest_effect"])), "of 100: a smaller one would have gone unseen more than one time in five"
    yield "q", sentences.small(row["q"]), f"false-discovery rate at which this would count; p {sentences.small(row['p'])}"
    yield "Accuracy gap", span("pa_gap"), "hits of 100 with the cue, less without (observed, no edit)"
    yield "False-alarm gap", span("hr_gap"), "false alarms of 100 other images with the cue, less without (observed)"
    yield "Accuracy gap, top K", of_100(number(row["pa_gap_top_k"]), True), f"SpurLens; the best of as many random cues: {of_100(number(row['null_pa_gap_top_k']), True)}"
    yield "False-alarm gap, top K", of_100(number(row["hr_gap_top_k"]), True), f"SpurLens; the best of as many random cues: {of_100(number(row['null_hr_gap_top_k']), True)}"
    if math.isfinite(number(row["ravl_gap"])):
        yield "RaVL gap", sentences.decimal(row["ravl_gap"]), f"weighted accuracy gap of the cluster; influence {sentences.decimal(row['ravl_influence'])}"
    yield "Log odds ratio", span("log_odds_ratio", 2), f"cue and class in the data; Cramér's V {sentences.decimal(row['cramers_v'])}"
    yield "Seen with the class", of_100(number(row["prevalence_class"])), f"of 100 images of the class; {of_100(number(row['prevalence_other']))} of 100 others"
    yield "Images, class", f"{count('n_class_with')} / {count('n_class_without')}", "with / without the cue"
    yield "Images, others", f"{count('n_other_with')} / {count('n_other_without')}", "with / without the cue"
    yield "Overlap with the object", of_100(number(row["object_overlap"])), "of 100 parts of the cue's boxes lie in the class's own boxes"


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


def class_cards(data: ReportData, views: list[FindingView]) -> list[ClassCard]:
    """One card a class, those with confirmed cues first, each group in the audit's order of classes."""
    per_class = data.run.get("data", {}).get("per_class", {})
    order = list(dict.fromkeys([*data.run.get("classes", []), *(view.row["label"] for view in views)]))
    cards = [_card(label, per_class.get(label), [view for view in views if view.row["label"] == label]) for label in order]
    rank = {"leaning": 0, "undecided": 1, "clean": 2, "untested": 3}
    return sorted(cards, key=lambda card: (rank[card.state], -(card.first.sort["harm"] if card.first else 0)))


def _card(label: str, images: int | None, views: list[FindingView]) -> ClassCard:
    tested = [view for view in views if was_tested(view.row)]
    verdicts = {v: [view for view in views if view.row["verdict"] == v] for v in ("confirmed", "inconclusive", "associated only", "core")}
    confirmed = verdicts["confirmed"]
    worst = max((number(view.row["smallest_effect"]) for view in tested if math.isfinite(number(view.row["smallest_effect"]))), default=math.nan)
    cues = f"{len(tested)} {'cue' if len(tested) == 1 else 'cues'}"
    seen = f" An effect of {of_100(worst)} of 100 would have been seen in each." if math.isfinite(worst) else ""
    if confirmed:
        state, headline = "leaning", f"Leans on {_listing([view.cue for view in confirmed])}"
        text = confirmed[0].sentence
    elif not tested:
        state, headline = "untested", "Not tested"
        text = "No cue of this class could be put to the test; see what was not tested."
    elif verdicts["inconclusive"]:
        state, headline = "undecided", f"Nothing confirmed, {len(verdicts['inconclusive'])} undecided"
        text = f"{cues} tested.{seen}"
    else:
        state, headline = "clean", "Tested and found clean"
        text = f"{cues} tested, none with an effect.{seen}"
    counts = tuple((verdict, len(found)) for verdict, found in verdicts.items() if found)
    return ClassCard(label, sentences.words(label), images, state, headline, text, counts, confirmed[0] if confirmed else None)


def _listing(names: list[str]) -> str:
    shown = [f"the {name}" if sentences.PLAIN_NAME.fullmatch(name) else f"“{name}”" for name in names[:3]]
    if len(names) > 3:
        return ", ".join(shown) + f" and {len(names) - 3} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def level(effect: float) -> str:
    """The colour of an effect: p0 (none) to p5 for harmful ones, n1 to n5 for the other sign, empty if unmeasured."""
    if not math.isfinite(effect):
        return "none"
    depth = sum(abs(effect) >= step for step in LEVELS)
    return f"{'n' if effect < 0 and depth else 'p'}{depth}"


def matrix_of(views: list[FindingView], cards: list[ClassCard]) -> Matrix:
    """The effects of every tested pair; the cues with confirmed findings and the largest effects come first."""
    tested = [view for view in views if was_tested(view.row)]
    weight: dict[str, tuple[bool, float]] = {}
    for view in tested:
        size = max(_worst_last(view.row["removal_effect"]), _worst_last(view.row["insertion_effect"]))
        weight[view.cue] = max(weight.get(view.cue, (False, -9.0)), (view.row["verdict"] == "confirmed", size))
    ranked = sorted(weight, key=lambda cue: (not weight[cue][0], -weight[cue][1], cue))
    cues = tuple(ranked[:MATRIX_COLUMNS])
    cells: dict[tuple[str, str], Cell] = {}
    for view in reversed(tested):  # the first of several findings of one pair stays
        removal, insertion = number(view.row["removal_effect"]), number(view.row["insertion_effect"])
        text = f"{view.cue}, {view.label}: {view.row['verdict']}; removed {of_100(removal, True)}, inserted {of_100(insertion, True)} of 100"
        cells[view.row["label"], view.cue] = Cell(
            view.slug,
            view.row["verdict"],
            (of_100(removal), level(removal)),
            (of_100(insertion), level(insertion)),
            text,
        )
    rows = tuple((card.name, tuple(cells.get((card.label, cue)) for cue in cues)) for card in cards)
    return Matrix(cues, rows, len(ranked) - len(cues))


def summary(data: ReportData, cards: list[ClassCard], views: list[FindingView]) -> str:
    """The audit in one paragraph of plain words."""
    confirmed = [view for view in views if view.row["verdict"] == "confirmed"]
    by_state = {state: [card for card in cards if card.state == state] for state in ("leaning", "clean", "undecided", "untested")}
    tested = sum(was_tested(view.row) for view in views)
    images = data.run.get("data", {}).get("images", 0)
    parts = [f"{tested} {_s(tested, 'cue')} of {len(cards)} {_s(len(cards), 'class', 'classes')} were put to the test, with {images:,} images."]
    if confirmed:
        leaning = len(by_state["leaning"])
        parts.append(f"The model leans on {len(confirmed)} {_s(len(confirmed), 'cue')} that it should not, in {leaning} {_s(leaning, 'class', 'classes')}.")
        parts.append(f"Worst: {confirmed[0].sentence}")
    elif tested:
        parts.append("No cue was confirmed.")
    if by_state["clean"]:
        parts.append(f"{_listing_classes(by_state['clean'])} came out clean.")
    if by_state["undecided"]:
        parts.append(f"For {_listing_classes(by_state['undecided'])} nothing is confirmed, but some cues are undecided: more images would settle them.")
    if by_state["untested"]:
        parts.append(f"{_listing_classes(by_state['untested'])} could not be tested.")
    return " ".join(parts)


def _s(count: int, one: str, many: str = "") -> str:
    return one if count == 1 else many or one + "s"


def _listing_classes(cards: list[ClassCard]) -> str:
    if len(cards) > 4:
        return f"{len(cards)} classes"
    names = [f"“{card.name}”" for card in cards]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def untested_groups(data: ReportData) -> list[tuple[str, int, list[tuple[str, list[str]]]]]:
    """What was not tested, by reason: the reason, how many experiments, and the cues of each class."""
    cues = {row["cue_id"]: sentences.words(row["name"]) for row in data.cues}
    grouped: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in data.untested:
        grouped[row["reason"]][sentences.words(row["label"])][cues.get(row["cue_id"], row["cue_id"])].append(row["direction"])
    found = []
    for reason, classes in grouped.items():
        count = sum(len(directions) for by_cue in classes.values() for directions in by_cue.values())
        listed = [
            (label, [cue + (f" ({', '.join(d for d in directions if d)})" if any(directions) else "") for cue, directions in by_cue.items()])
            for label, by_cue in classes.items()
        ]
        found.append((reason, count, listed))
    return sorted(found, key=lambda group: -group[1])

"""The audit at a glance: a paragraph, a card a class, the matrix of classes by cues, what was not tested."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from pipeline.report import sentences
from pipeline.report.data import ReportData
from pipeline.report.sentences import number, of_100
from pipeline.report.view import FindingView, was_tested, worst_last

MATRIX_COLUMNS = 18  # most cues of the overview: more can't be read
RANKED = 5  # findings listed on a class's card
LEVELS = (0.02, 0.05, 0.10, 0.20, 0.35)  # effect sizes at which a cell's colour deepens


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
    ranked: tuple[FindingView, ...] = ()  # its first findings
    more: int = 0  # beyond those


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


def class_cards(data: ReportData, views: list[FindingView]) -> list[ClassCard]:
    """One card a class, those with confirmed cues first, each group in the audit's order of classes."""
    per_class = data.run.get("data", {}).get("per_class", {})
    order = list(dict.fromkeys([*data.run.get("classes", []), *(view.row["class"] for view in views)]))
    cards = [
        _card(label, per_class.get(label), [view for view in views if view.row["class"] == label]) for label in order
    ]
    rank = {"leaning": 0, "undecided": 1, "clean": 2, "untested": 3}
    return sorted(cards, key=lambda card: (rank[card.state], -(card.first.sort["harm"] if card.first else 0)))


def _card(label: str, images: int | None, views: list[FindingView]) -> ClassCard:
    tested = [view for view in views if was_tested(view.row)]
    verdicts = {
        v: [view for view in views if view.row["verdict"] == v]
        for v in ("confirmed", "inconclusive", "associated only", "core")
    }
    confirmed = verdicts["confirmed"]
    undecided = sum(view.row["verdict"] == "inconclusive" for view in tested)
    worst = max(
        (number(view.row["smallest_effect"]) for view in tested if math.isfinite(number(view.row["smallest_effect"]))),
        default=math.nan,
    )
    cues = f"{len(tested)} {'cue' if len(tested) == 1 else 'cues'}"
    seen = f" An effect of {of_100(worst)} of 100 would have been seen in each." if math.isfinite(worst) else ""
    if confirmed:
        state, headline = "leaning", f"Leans on {_listing([view.cue for view in confirmed])}"
        text = confirmed[0].sentence
    elif not tested:
        state, headline = "untested", "Not tested"
        text = "No cue of this class could be put to the test; see what was not tested."
    elif undecided:
        state, headline = "undecided", f"Nothing confirmed, {undecided} undecided"
        text = f"{cues} tested.{seen}"
    else:
        state, headline = "clean", "Tested and found clean"
        text = f"{cues} tested, none with an effect.{seen}"
    counts = tuple((verdict, len(found)) for verdict, found in verdicts.items() if found)
    return ClassCard(
        label,
        sentences.words(label),
        images,
        state,
        headline,
        text,
        counts,
        confirmed[0] if confirmed else None,
        tuple(views[:RANKED]),
        max(len(views) - RANKED, 0),
    )


def _listing(names: list[str]) -> str:
    shown = [f"the {name}" if sentences.PLAIN_NAME.fullmatch(name) else f"“{name}”" for name in names[:3]]
    if len(names) > 3:
        return ", ".join(shown) + f" and {len(names) - 3} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def level(effect: float) -> str:
    """The colour of an effect: p0 (none) to p5 for harmful ones, n1 to n5 for the other sign; or `none`."""
    if not math.isfinite(effect):
        return "none"
    depth = sum(abs(effect) >= step for step in LEVELS)
    return f"{'n' if effect < 0 and depth else 'p'}{depth}"


def _whole(effect: float) -> str:
    """Whole images of 100: a cell of the matrix has room for no more."""
    return f"{round(100 * effect):d}".replace("-", "−") if math.isfinite(effect) else sentences.DASH


def matrix_of(views: list[FindingView], cards: list[ClassCard]) -> Matrix:
    """The effects of every tested pair; cues with confirmed findings first, then those with large effects"""
    tested = [view for view in views if was_tested(view.row)]
    weight: dict[str, tuple[bool, float]] = {}
    for view in tested:
        size = max(worst_last(view.row["removal_effect"]), worst_last(view.row["insertion_effect"]))
        weight[view.cue] = max(weight.get(view.cue, (False, -9.0)), (view.row["verdict"] == "confirmed", size))
    ranked = sorted(weight, key=lambda cue: (not weight[cue][0], -weight[cue][1], cue))
    cues = tuple(ranked[:MATRIX_COLUMNS])
    cells: dict[tuple[str, str], Cell] = {}
    for view in reversed(tested):  # the first of several findings of one pair stays
        removal, insertion = number(view.row["removal_effect"]), number(view.row["insertion_effect"])
        counts = f"removed {of_100(removal, True)}, inserted {of_100(insertion, True)} of 100"
        cells[view.row["class"], view.cue] = Cell(
            view.slug,
            view.row["verdict"],
            (_whole(removal), level(removal)),
            (_whole(insertion), level(insertion)),
            f"{view.cue}, {view.label}: {view.row['verdict']}; {counts}",
        )
    rows = tuple((card.name, tuple(cells.get((card.label, cue)) for cue in cues)) for card in cards)
    return Matrix(cues, rows, len(ranked) - len(cues))


def clean(views: list[FindingView]) -> list[tuple[str, list[FindingView], str]]:
    """What was tested and found clean: class, its findings without an effect, the largest that could have hidden."""
    found: dict[str, list[FindingView]] = defaultdict(list)
    for view in views:
        if was_tested(view.row) and view.row["verdict"] == "associated only":
            found[view.label].append(view)
    return [
        (label, some, of_100(max((number(view.row["smallest_effect"]) for view in some), key=worst_last)))
        for label, some in sorted(found.items())
    ]


def summary(data: ReportData, cards: list[ClassCard], views: list[FindingView]) -> str:
    """The audit in one paragraph of plain words."""
    confirmed = [view for view in views if view.row["verdict"] == "confirmed"]
    by_state = {
        state: [card for card in cards if card.state == state]
        for state in ("leaning", "clean", "undecided", "untested")
    }
    tested = sum(was_tested(view.row) for view in views)
    images = data.run.get("data", {}).get("images", 0)
    classes = f"{len(cards)} {_s(len(cards), 'class', 'classes')}"
    tried = f"{tested} {_s(tested, 'cue')} of {classes} {_s(tested, 'was', 'were')} put to the test"
    parts = [f"{tried} on {images:,} images."]
    if data.run.get("observational"):
        parts.append(sentences.OBSERVATIONAL)
    if confirmed:
        leaning = len(by_state["leaning"])
        where = f"in {leaning} {_s(leaning, 'class', 'classes')}"
        parts.append(f"The model leans on {len(confirmed)} {_s(len(confirmed), 'cue')} that it should not, {where}.")
        parts.append(f"Worst: {confirmed[0].sentence}")
    elif tested:
        parts.append("No cue was confirmed.")
    if by_state["clean"]:
        parts.append(f"{_listing_classes(by_state['clean'])} came out clean.")
    if by_state["undecided"]:
        open_ones = _listing_classes(by_state["undecided"])
        parts.append(f"For {open_ones} nothing is confirmed; more images would settle the undecided cues.")
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
        cue = cues.get(row["cue_id"]) or str(row["cue_id"])
        grouped[row["reason"]][sentences.words(row["label"])][cue].append(row["direction"] or "")
    found = []
    for reason, classes in grouped.items():
        count = sum(len(directions) for by_cue in classes.values() for directions in by_cue.values())
        listed = [
            (
                label,
                [
                    cue + (f" ({', '.join(d for d in directions if d)})" if any(directions) else "")
                    for cue, directions in by_cue.items()
                ],
            )
            for label, by_cue in classes.items()
        ]
        found.append((reason, count, listed))
    return sorted(found, key=lambda group: -group[1])

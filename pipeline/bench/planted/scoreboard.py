"""Rows of settings into the scoreboard: one table of methods, the promises held or not, a figure."""

from __future__ import annotations

import datetime
import html
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from pipeline.errors import UserError
from pipeline.metrics.intervals import wilson
from pipeline.store import write_text

OURS = "cuescope"
EXHAUSTIVE = "cuescope exhaustive"
BARE = "cuescope without ablation"
PUBLISHED = ("random", "ravl", "spurlens", "b2t", "domino")
METHODS = (OURS, EXHAUSTIVE, BARE, *PUBLISHED)
LOCAL = ("object", "background", "overlay")
"""Kinds of cue for which the planted one must come first in 90 % of the settings; 75 % for the others."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Promise:
    """A line of the issue that the benchmark answers for: what was measured, the target, whether it holds."""

    line: int
    what: str
    value: float | None
    target: str
    holds: bool | None  # None: nothing to measure it on

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"line": self.line, "what": self.what, "value": _rounded(self.value), "target": self.target,
                "holds": self.holds}  # fmt: skip


def planted_rows(rows: Iterable[Row]) -> list[Row]:
    """The valid settings with a cue that the model leans on."""
    return [r for r in rows if r.get("valid") and r["setting"]["design"] not in ("null", "association")]


def kind_of(row: Row) -> str:
    """The kind of a row's (first) planted cue."""
    return str(row["setting"]["planted"][0][1]["kind"])


def mean(values: Iterable[float]) -> float | None:
    """The mean, or None of nothing."""
    known = [float(v) for v in values]
    return float(np.mean(known)) if known else None


def method_scores(rows: Sequence[Row], method: str) -> dict[str, Any]:
    """The figures of one method over all rows; None where it has no such figure."""
    valid = [r["methods"][method] for r in planted_rows(rows) if method in r["methods"]]
    every = [r["methods"][method] for r in rows if method in r.get("methods", {})]
    tested = method in (OURS, EXHAUSTIVE)
    nulls = [r["methods"][method] for r in rows if r["setting"]["design"] == "null" and method in r.get("methods", {})]
    confirmed = sum(m["confirmed"] for m in every) if tested else 0
    covered = [_covers(i) for m in every for i in m["intervals"] if i["verdict"] == "confirmed"] if tested else []
    return {
        "precision_at_10": _rounded(mean(m["precision_at_10"] for m in valid)),
        "recall_at_1": _rounded(mean(m["at_1"] for m in valid)),
        "recall_at_3": _rounded(mean(m["at_3"] for m in valid)),
        "null_audits_with_any": _rounded(mean(m["confirmed"] > 0 for m in nulls)) if tested else None,
        "false_confirmed_share": _rounded(sum(len(m["false"]) for m in every) / confirmed) if confirmed else None,
        "interval_coverage": _rounded(mean(covered)) if tested else None,
        "forwards": _rounded(mean(m["forwards"] for m in every)),
        "seconds": _rounded(mean(m["seconds"] for m in every)),
    }


def _covers(interval: dict[str, Any]) -> bool:
    return bool(interval["lower"] <= interval["truth"] <= interval["upper"])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def promises(rows: Sequence[Row]) -> list[Promise]:
    """What the benchmark must show, line by line, on the rows that didn't fail."""
    rows = [r for r in rows if "error" not in r]
    valid = planted_rows(rows)
    nulls = [r for r in rows if r["setting"]["design"] == "null"]
    association = [r for r in rows if r["setting"]["design"] == "association"]
    ours = method_scores(rows, OURS)
    rivals = [(s, name) for name in PUBLISHED if (s := method_scores(rows, name)["precision_at_10"]) is not None]
    best, best_name = max(rivals, default=(None, ""))
    p10 = ours["precision_at_10"]
    found = [
        Promise(1, "mean Precision@10", p10, ">= 0.95", None if p10 is None else p10 >= 0.95),
        Promise(
            1, f"error 1 - P@10, as a share of the best published method's ({best_name})",
            None if p10 is None or best is None or best >= 1 else (1 - p10) / (1 - best), "<= 0.5",
            None if p10 is None or best is None else 1 - p10 <= 0.5 * (1 - best),
        ),
    ]  # fmt: skip
    for strength in sorted({r["setting"]["strength"] for r in valid}):
        these = [r for r in valid if r["setting"]["strength"] == strength]
        mine = method_scores(these, OURS)["precision_at_10"] or 0.0
        lead = mine - max(method_scores(these, name)["precision_at_10"] or 0.0 for name in PUBLISHED)
        found.append(Promise(1, f"lead over every published method at V = {strength:g}", lead, "> 0", lead > 0))
    for name, kinds, target in (("object, background or text", LOCAL, 0.9), ("another kind", None, 0.75)):
        these = [r for r in valid if (kind_of(r) in LOCAL) == (kinds is not None)]
        value = mean(r["methods"][OURS]["at_1"] for r in these)
        what = f"planted cue at rank 1, cue of {name} ({len(these)} settings)"
        found.append(Promise(1, what, value, f">= {target}", None if value is None else value >= target))
    any_null = ours["null_audits_with_any"]
    found.append(
        Promise(2, f"null audits with a confirmed finding ({len(nulls)})", any_null, "<= 0.05", _below(any_null))
    )
    share = ours["false_confirmed_share"]
    found.append(Promise(2, "confirmed findings that are false, all settings", share, "<= 0.05", _below(share)))
    alone = mean(_confirms_pair(r) for r in association)
    what = f"association without reliance confirmed ({len(association)} settings)"
    found.append(Promise(2, what, alone, "<= 0.05", _below(alone)))
    intervals = [i for r in valid for i in r["methods"][OURS]["intervals"] if i["verdict"] == "confirmed"]
    for kind in sorted({i["kind"] for i in intervals}):
        value = mean(_covers(i) for i in intervals if i["kind"] == kind)
        n = sum(i["kind"] == kind for i in intervals)
        assert value is not None
        found.append(Promise(3, f"intervals that cover the truth, {kind} ({n})", value, "0.90 to 0.99",
                             value >= 0.9 and not too_many(round(value * n), n)))  # fmt: skip
    pairs = [(r["methods"][OURS], r["methods"][EXHAUSTIVE]) for r in rows if EXHAUSTIVE in r.get("methods", {})]
    same = mean(same_first(a, b) for a, b in pairs)
    found.append(Promise(4, "racing and exhaustive agree on the first 5 findings", same, ">= 0.95",
                         None if same is None else same >= 0.95))  # fmt: skip
    spent = sum(b["edits"] for _, b in pairs)
    ratio = sum(a["edits"] for a, _ in pairs) / spent if spent else None
    found.append(Promise(4, "racing's edited images, as a share of the exhaustive mode's", ratio, "<= 0.25",
                         None if ratio is None else ratio <= 0.25))  # fmt: skip
    return found


def too_many(covered: int, n: int) -> bool:
    """Whether so many of `n` intervals cover the truth that their level must be above 0.99: at 0.99 that many would do
    so in less than one of twenty cases. Of few intervals all may cover at any level."""
    return bool(stats.binom.sf(covered - 1, n, 0.99) < 0.05)


def _below(value: float | None) -> bool | None:
    return None if value is None else value <= 0.05


def _confirms_pair(row: Row) -> bool:
    """Whether an association setting's planted pair was confirmed although the model doesn't lean on it."""
    return any(i["verdict"] == "confirmed" for i in row["methods"][OURS]["intervals"])


def same_first(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two runs have the same first five findings, whatever their order within."""
    return {(c, cue) for c, cue, _ in a["top_5"]} == {(c, cue) for c, cue, _ in b["top_5"]}


def quick_holds(rows: Sequence[Row]) -> bool:
    """What a handful of settings can show of the promises: of few settings one miss is no news; two are.

    Nothing failed, no finding is false and none is in a null or of an association alone; of the planted cues, of the
    exhaustive mode's first fives and of the intervals of confirmed findings at most one is missed; Precision@10 is 0.9;
    racing spends no more than 0.3 of the exhaustive mode (over a world the promise is 0.25).
    """
    if any("error" in r for r in rows) or not planted_rows(rows):
        return False
    ours = [r["methods"][OURS] for r in planted_rows(rows)]
    every = [r["methods"][OURS] for r in rows]
    pairs = [(r["methods"][OURS], r["methods"][EXHAUSTIVE]) for r in rows if EXHAUSTIVE in r["methods"]]
    intervals = [i for m in ours for i in m["intervals"] if i["verdict"] == "confirmed"]
    quiet = [r for r in rows if r["setting"]["design"] in ("null", "association")]
    return (
        sum(len(m["false"]) for m in every) == 0
        and not any(_confirms_pair(r) or (r["setting"]["design"] == "null" and r["methods"][OURS]["confirmed"])
                    for r in quiet)
        and sum(not m["at_1"] for m in ours) <= 1
        and (mean(m["precision_at_10"] for m in ours) or 0.0) >= 0.9
        and sum(not same_first(a, b) for a, b in pairs) <= 1
        and sum(a["edits"] for a, _ in pairs) <= 0.3 * sum(b["edits"] for _, b in pairs)
        and sum(not _covers(i) for i in intervals) <= 1
    )  # fmt: skip


def machine() -> str:
    """In words."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def scoreboard(worlds: dict[str, Sequence[Row]], command: str) -> dict[str, Any]:
    """The file data/scoreboard/planted.json; `methods` are of the held-out world where it was run."""
    reported = "held-out" if worlds.get("held-out") else next(iter(worlds))
    rows = worlds[reported]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "command": command,
        "world": reported,
        "settings": {
            "all": len(rows),
            "valid": len(planted_rows(rows)),
            "null": sum(r["setting"]["design"] == "null" for r in rows),
            "association": sum(r["setting"]["design"] == "association" for r in rows),
            "failed": sum("error" in r for r in rows),
        },
        "methods": {name: method_scores(rows, name) for name in METHODS},
        "promises": {world: [p.to_dict() for p in promises(these)] for world, these in worlds.items()},
        "by_strength": {
            f"{strength:g}": {
                name: method_scores(
                    [r for r in rows if r["setting"]["strength"] == strength], name
                )["precision_at_10"]
                for name in METHODS
            }
            for strength in sorted({r["setting"]["strength"] for r in planted_rows(rows)})
        },
        "by_kind": {
            kind: {name: method_scores([r for r in planted_rows(rows) if kind_of(r) == kind], name)
                   for name in METHODS}
            for kind in sorted({kind_of(r) for r in planted_rows(rows)})
        },
        "rows": {world: list(these) for world, these in worlds.items()},
    }  # fmt: skip


HEADINGS = {
    "precision_at_10": "P@10",
    "recall_at_1": "cue first",
    "recall_at_3": "cue in 3",
    "null_audits_with_any": "nulls with any",
    "false_confirmed_share": "false of confirmed",
    "interval_coverage": "coverage",
    "forwards": "forwards",
    "seconds": "seconds",
}


def markdown(board: dict[str, Any]) -> str:
    """The table of methods and the list of promises, for the README."""
    settings = board["settings"]
    lines = [
        f"{board['world'].capitalize()} world: {settings['valid']} valid settings of {settings['all']}, "
        f"{settings['null']} nulls, {settings['association']} with association alone. "
        f"{board['date']}, {board['machine']}.",
        "",
        "| method | " + " | ".join(HEADINGS.values()) + " |",
        "| --- |" + " ---: |" * len(HEADINGS),
    ]
    for name, scores in board["methods"].items():
        cells = [_cell(key, scores[key]) for key in HEADINGS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| line | what | measured | target | |", "| --- | --- | ---: | --- | --- |"]
    for p in board["promises"][board["world"]]:
        word = {True: "holds", False: "**missed**", None: "-"}[p["holds"]]
        value = "-" if p["value"] is None else f"{p['value']:.3f}"
        lines.append(f"| {p['line']} | {p['what']} | {value} | {p['target']} | {word} |")
    return "\n".join(lines) + "\n"


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if key in ("forwards",) else f"{value:.1f}" if key == "seconds" else f"{value:.2f}"


def figure(board: dict[str, Any]) -> str:
    """Precision@10 by method and strength, with Wilson intervals over the settings' shares, as SVG."""
    names = [OURS, BARE, *PUBLISHED]
    colors = ("#0b6e4f", "#58a783", "#999999", "#c8553d", "#588b8b", "#f28f3b", "#6a4c93")
    strengths = list(board["by_strength"])
    rows = board["rows"][board["world"]]
    width, height, left, bottom, top = 760, 330, 48, 60, 44
    plot_w, plot_h = width - left - 12, height - bottom - top
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" '
        f'font-size="11"><title>Precision@10 by strength of the planted correlation</title>'
        f'<rect width="{width}" height="{height}" fill="white"/>'
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = top + plot_h * (1 - tick)
        parts.append(f'<line x1="{left}" x2="{width - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    group = plot_w / max(len(strengths), 1)
    bar = group * 0.84 / len(names)
    for s, strength in enumerate(strengths):
        n = sum(r["setting"]["strength"] == float(strength) for r in planted_rows(rows))
        x0 = left + s * group + group * 0.08
        for k, name in enumerate(names):
            value = board["by_strength"][strength][name] or 0.0
            x, h = x0 + k * bar, plot_h * value
            parts.append(
                f'<rect x="{x:.1f}" y="{top + plot_h - h:.1f}" width="{bar * 0.9:.1f}" height="{h:.1f}" '
                f'fill="{colors[k]}"><title>{html.escape(name)}: {value:.2f}</title></rect>'
            )
            interval = wilson(value * n, n)
            middle = x + bar * 0.45
            low, high = (top + plot_h * (1 - float(end)) for end in (interval.lower, interval.upper))
            parts.append(f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="#333"/>')
        parts.append(
            f'<text x="{x0 + group * 0.42:.1f}" y="{height - bottom + 16}" text-anchor="middle">V = {strength} '
            f"({n})</text>"
        )
    for k, name in enumerate(names):
        x = left + k * (plot_w / len(names))
        parts.append(f'<rect x="{x:.1f}" y="14" width="10" height="10" fill="{colors[k]}"/>')
        parts.append(
            f'<text x="{x + 14:.1f}" y="23">{html.escape(name.replace("cuescope without", "ours, no"))}</text>'
        )
    parts.append(
        f'<text x="{left + plot_w / 2:.1f}" y="{height - 16}" text-anchor="middle">strength of the planted correlation '
        f"in the fine-tuning set (Cramer's V), and valid settings; whiskers: 95 % Wilson</text></svg>"
    )
    return "".join(parts)


def write(board: dict[str, Any], out: Path) -> list[Path]:
    """planted.json, planted.md and planted.svg."""
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "planted.json": json.dumps(board, indent=1) + "\n",
        "planted.md": markdown(board),
        "planted.svg": figure(board) + "\n",
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


MARKS = ("<!-- scoreboard: written by cuescope bench planted -->", "<!-- end of the scoreboard -->")


def write_into(readme: Path, board: dict[str, Any]) -> None:
    """Put the table between the README's two marks.

    Raises:
        UserError: the file lacks them.
    """
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not (first and last):
        raise UserError(f"{readme} lacks the lines '{MARKS[0]}' and '{MARKS[1]}': write them where the table belongs.")
    write_text(readme, f"{before}{first}\n{markdown(board)}{last}{after}")

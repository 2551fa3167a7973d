"""The report: one HTML file that is complete in itself, and lets nothing in or out."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from pipeline.errors import plain
from pipeline.records import VERDICTS
from pipeline.report import answers, changes, checks, overview, sentences, view
from pipeline.report.data import ReportData
from pipeline.report.plots import Scale, scale_of

PICTURE_PREFIXES = ("data:image/webp;base64,", "data:image/jpeg;base64,", "data:image/png;base64,")


@dataclass(frozen=True)
class Compared:
    """What changed since the audit before, in words."""

    before: str
    headline: str
    attribution: str
    causes: list[str]
    images: str
    drift: list[str]
    news: list[tuple[str, str, str, str]]  # change, class and cue, sentence, finding's place on the page or empty


@dataclass(frozen=True)
class Page:
    """What the template needs beside the data."""

    data: ReportData
    title: str
    summary: str
    model: str
    model_short: str
    root: str
    root_short: str
    date: str
    images: int
    confirmed: int
    cards: list[overview.ClassCard]
    matrix: overview.Matrix
    views: list[view.FindingView]
    scale: Scale
    verdicts: list[str]
    types: list[str]
    slugs: dict[tuple[str, str], str]
    cue_names: dict[str, str]
    untested: list[tuple[str, int, list[tuple[str, list[str]]]]]
    stages: list[tuple[str, str, str]]
    costs: str
    answered: list[answers.ClassAnswers]
    asked: str
    own_pictures: str
    compared: Compared | None
    checks: checks.Checks
    ablation: str
    q: Any
    smallest: str
    clean: list[tuple[str, list[view.FindingView], str]]
    cite: Cite
    config: str
    keys: dict[str, str]
    pictures: Markup
    style: Markup
    script: Markup
    hashes: dict[str, Markup]
    review: bool


def render_report(data: ReportData, review: bool = False) -> str:
    """The report as the text of one HTML file.

    Everything that comes from data (names, captions, paths, reasons) is escaped, and what would hide or turn text
    is made visible; styles, script and pictures are inside the file, and its content-security policy allows no others.

    Args:
        data: what is shown; its pictures are data URIs.
        review: make it the page of `cuescope review`, which takes verdicts and has its pictures from its server.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        finalize=lambda value: plain(value, keep="\n\t") if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = lambda score: sentences.decimal(score)
    environment.filters["hundred"] = lambda share: sentences.of_100(share)
    environment.filters["width"] = lambda score: f"{100 * min(max(score, 0.0), 1.0) if math.isfinite(score) else 0:.1f}"
    templates = files("pipeline.report") / "templates"
    names = ("report", "review") if review else ("report",)
    style, script = (
        "".join((templates / f"{name}.{kind}").read_text(encoding="utf-8") for name in names) for kind in ("css", "js")
    )
    page = _page(data, style, script, review)
    return environment.get_template("report.html").render(page=page, data=data, run=_Run(data.run))


class _Run(dict[str, Any]):
    """run.json with None for what an older version didn't write."""

    def __missing__(self, key: str) -> None:
        return None


def _page(data: ReportData, style: str, script: str, review: bool) -> Page:
    run = data.run
    scale = scale_of(data)
    views = view.finding_views(data, scale)
    cards = overview.class_cards(data, views)
    audit = run.get("audit") or {}
    chosen = audit.get("model") or {}
    model = str(chosen.get("name") or chosen.get("factory") or chosen.get("kind") or "unknown")
    root = str((run.get("data") or {}).get("root") or "unknown")
    keys, pictures = _pictures(data)
    title = f"What {_short(model)} leans on in {_short(root)}"
    date = str(run.get("finished") or run.get("started") or "–")[:10]
    present = {row["verdict"] for row in data.findings}
    return Page(
        data=data,
        title=title,
        summary=overview.summary(data, cards, views),
        model=model,
        model_short=_short(model),
        root=root,
        root_short=_short(root),
        date=date,
        images=int((run.get("data") or {}).get("images") or 0),
        confirmed=sum(row["verdict"] == "confirmed" for row in data.findings),
        cards=cards,
        matrix=overview.matrix_of(views, cards),
        views=views,
        scale=scale,
        verdicts=[name for name in VERDICTS if name in present],
        types=sorted({row["cue_type"] for row in data.findings if row["cue_type"]}),
        slugs={(item.row["class"], item.row["cue_id"]): item.slug for item in views},
        cue_names={row["cue_id"]: sentences.words(sentences.called(row)) for row in data.findings},
        untested=overview.untested_groups(data),
        stages=_stages(run),
        costs=sentences.calls(run.get("costs") or {}),
        answered=answers.by_class(data.variants, {row["cue_id"]: row["name"] for row in data.cues}),
        asked=answers.asked(data.answers),
        own_pictures=answers.own_pictures(data.variants),
        compared=_compared(data, views),
        checks=checks.checks_of(data),
        ablation=sentences.ablation(run.get("ablation") or {}),
        q=(audit.get("rank") or {}).get("q", 0.05),
        smallest=sentences.of_100(sentences.number((audit.get("rank") or {}).get("smallest_effect", 0.05))),
        clean=overview.clean(views),
        cite=_cite(run, title, date),
        config=yaml.safe_dump(audit, sort_keys=False, allow_unicode=True),
        keys=keys,
        pictures=pictures,
        style=Markup(style),
        script=Markup(script),
        hashes={"style": _hash(style), "script": _hash(script)},
        review=review,
    )


def _hash(text: str) -> Markup:
    """What the content-security policy allows an inlined text by."""
    return Markup(f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}")


@dataclass(frozen=True)
class Cite:
    """How to cite the audit, in a sentence, and the program, as BibTeX."""

    audit: str
    bibtex: str


def _cite(run: dict[str, Any], title: str, date: str) -> Cite:
    version = str(run.get("cuescope") or "unknown version")
    year = date[:4] if date[:4].isdigit() else ""
    of = f"run {run['run'][:12]}, " if isinstance(run.get("run"), str) and run["run"] else ""
    audit = (
        f"{title}. Audit of {date} with Cuescope {version} ({of}configuration {run.get('digest') or 'unknown'}, "
        f"code {run.get('code') or 'unknown'}, seed {run.get('seed')})."
    )
    lines = [
        "@software{cuescope,",
        "  title   = {Cuescope: spurious visual cues, found, verified and ranked},",
        "  author  = {{The Cuescope developers}},",
        f"  version = {{{version}}},",
        *([f"  year    = {{{year}}},"] if year else []),
        "  license = {Apache-2.0},",
        "}",
    ]
    return Cite(audit, "\n".join(lines))


def _compared(data: ReportData, views: list[view.FindingView]) -> Compared | None:
    summary = data.run.get("comparison")
    if not summary:
        return None
    slugs = {(item.row["class"], item.row["cue_id"]): item.slug for item in views}
    news = [
        (row["change"], changes.subject(row), changes.sentence(row), slugs.get((row["class"], row["cue_id_after"]), ""))
        for row in changes.news(data.changes)
    ]
    return Compared(
        before=PurePosixPath(summary["before"]).name,
        headline=changes.headline(summary["counts"]),
        attribution=changes.attribution(summary["causes"]),
        causes=changes.causes(summary["causes"]),
        images=changes.images(summary["images"]),
        drift=changes.drift(summary),
        news=news,
    )


def _pictures(data: ReportData) -> tuple[dict[str, str], Markup]:
    """Each picture once: data URI to key, and key to data URI as JSON that is safe in a script element."""
    uris = [*data.thumbs.values(), *(uri for t in data.triples for uri in (t.before, t.after, t.placebo))]
    uris += [*data.montages.values(), *(heat.picture for heat in data.beside.heats.values())]
    keys = {
        uri: f"p{i}" for i, uri in enumerate(dict.fromkeys(uri for uri in uris if uri.startswith(PICTURE_PREFIXES)))
    }
    text = json.dumps({key: uri for uri, key in keys.items()}, separators=(",", ":"))
    return keys, Markup(text.replace("<", "\\u003c"))


def _short(place: str) -> str:
    """The telling end of a path or model name: `local-dir:/a/data/demo/model` as `demo/model`."""
    parts = PurePosixPath(place.removeprefix("local-dir:").replace("\\", "/")).parts
    return "/".join(part for part in parts[-2:] if part != "/") if len(parts) > 1 and "://" not in place else place


def _stages(run: dict[str, Any]) -> list[tuple[str, str, str]]:
    forwards, seconds = run.get("forwards") or {}, run.get("seconds") or {}
    names = list(dict.fromkeys([*seconds, *forwards]))
    rows = [
        (
            name,
            f"{forwards[name]:,}" if name in forwards else "",
            f"{seconds[name]:.1f}" if name in seconds else "",
        )
        for name in names
    ]
    return [*rows, ("together", f"{sum(forwards.values()):,}", f"{sum(seconds.values()):.1f}")]

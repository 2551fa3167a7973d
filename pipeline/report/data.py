"""What a report is made of: rows of the audit's tables and small pictures, with nothing left to look up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.report.beside import Beside

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Triple:
    """One image of an ablation: before, edited, and the placebo edit, with the class's score (share) at each.

    `place` says where its effect stands among the images of the experiment: strongest, typical or weakest.
    The pictures are addresses, as in ReportData.
    """

    finding_id: str
    direction: str  # removal | insertion
    fill: str
    place: str
    image_id: str
    before: str
    after: str
    placebo: str
    score_before: float
    score_after: float
    score_placebo: float


@dataclass(frozen=True)
class ReportData:
    """Everything that the report shows; every list may be empty.

    `run` is run.json. `findings`, `untested`, `quarantine`, `attributes`, `cues`, `variants`, `changes` and `checks`
    hold rows of those tables, `answers` how many questions were asked and how many answers say neither Yes nor No,
    `effects` the effect by fill: finding_id, fill, direction, estimate (a share), n. `images` maps an image id to its
    row (path, label, width, height), `thumbs` to the address of its picture, and `montages` a cue_id to that of its
    cluster's regions: data URIs in a file, addresses of the server's on a page for review. `beside` is what else stands
    beside findings.
    """

    run: dict[str, Any]
    findings: Rows
    effects: Rows = field(default_factory=list)
    untested: Rows = field(default_factory=list)
    quarantine: Rows = field(default_factory=list)
    attributes: Rows = field(default_factory=list)
    cues: Rows = field(default_factory=list)
    variants: Rows = field(default_factory=list)
    changes: Rows = field(default_factory=list)
    checks: Rows = field(default_factory=list)
    answers: tuple[int, int] = (0, 0)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    thumbs: dict[str, str] = field(default_factory=dict)
    triples: list[Triple] = field(default_factory=list)
    montages: dict[str, str] = field(default_factory=dict)
    beside: Beside = field(default_factory=Beside)
    pictures_left_out: int = 0  # findings whose pictures would have made the file too large

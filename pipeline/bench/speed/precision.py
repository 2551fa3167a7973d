"""Precision: what is found of planted cues in the fast way, less what is found in the slow one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.bench.planted import families, judge, methods
from pipeline.bench.planted.run import Models, audit_of, build_model, run_chain, write_pictures
from pipeline.bench.planted.settings import Setting, settings
from pipeline.bench.speed.clusters import cosine_distances, k_medoids
from pipeline.bench.speed.lines import Line
from pipeline.context import Context
from pipeline.models.protocols import Floats
from pipeline.records import worst_first
from pipeline.store import AuditFolder

LIKE_CROPS, LIKE_MEDOIDS = 0.03, 0.03
"""What the mean Precision@10 may fall behind by."""
MOST_REGIONS = 4000
"""K-medoids holds every distance between two regions."""


def bench_precision(quick: bool, models: Path, work: Path) -> Iterator[Line]:
    """RoIAlign against crops, by the ranking without ablation; k-means against K-medoids, by RaVL's ranking.

    On development settings whose cue is a thing in a place, which is what regions are for.
    """
    chosen = Models(models / "clip", models / "detector", models / "mllm", work)
    things = [one for one in settings("development") if one.design == "planted" and one.family != "vit"]
    things = [one for one in things if one.planted[0][1].kind in ("object", "overlay") and one.strength >= 0.8]
    things = things[:1] if quick else things[:8]
    found = np.array([_precisions(one, chosen) for one in things]).mean(axis=0)
    roi, crops, means, medoids = found.tolist()
    said = f"{len(things)} planted settings" if len(things) > 1 else "one planted setting"
    yield Line("precision", "P@10 with RoIAlign less with crops", roi - crops, -LIKE_CROPS, setting=said, unit="")
    yield Line("precision", "P@10 with RoIAlign", roi, unit="", setting=said)
    yield Line(
        "precision", "RaVL's P@10, k-means less K-medoids", means - medoids, -LIKE_MEDOIDS, setting=said, unit=""
    )
    yield Line("precision", "RaVL's P@10, k-means", means, unit="", setting=said)


def _precisions(setting: Setting, models: Models) -> list[float]:
    """Precision@10 with RoIAlign and with crops, and of RaVL's ranking with k-means and with K-medoids."""
    aligned, truth = _audited(setting, models, "roi_align")
    crops, _ = _audited(setting, models, "crops")
    rankings = [
        *(methods.findings_ranking(e, sorted(e.folder.read("findings").to_pylist(), key=worst_first))
          for e in (aligned, crops)),
        *(methods.ravl_ranking(aligned, fit, MOST_REGIONS) for fit in (methods.k_means, _medoids)),
    ]  # fmt: skip
    return [truth.precision(ranking[0] if ranking else None) for ranking in rankings]


def _medoids(vectors: Floats, k: int, seed: int) -> Floats:
    return vectors[k_medoids(cosine_distances(vectors), k, seed)]


def _audited(setting: Setting, models: Models, regions: str) -> tuple[methods.Evidence, judge.Truth]:
    """The evidence of an audit of the setting without ablation, and the truth."""
    pictures, examples = write_pictures(setting, models)
    section = families.back_end(setting.family, build_model(setting, models))
    audit = audit_of(setting, models, pictures, section, "none", regions)
    out = models.work / "audits" / f"{setting.key}-{regions}"
    run_chain(audit, out)
    folder = AuditFolder.open(out)
    context = Context(audit, folder)
    numbers = [int(Path(path).stem) for path in folder.read("images")["path"].to_pylist()]
    truth = judge.Truth(setting, [examples[n] for n in numbers], context.model)
    return methods.Evidence(folder, audit, context.encoder, context.cache, audit.seed), truth

"""Run settings: build the model and the pictures, audit them, let every method rank, and judge.

All that is built (pictures, models, features) lies in one folder and is made again by the same command; a setting's
row is kept beside it under a key of the setting, the shipped models and the code, so that a run that was cut off goes
on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.planted.settings import Example, Setting, audited, quick, training
from pipeline.config import Audit
from pipeline.records import worst_first
from pipeline.store import key_of

CODE = ("stages", "evidence", "metrics", "models", "bench", "planted")
"""Packages that a row depends on: with a change in them it is made again."""


@dataclass(frozen=True)
class Models:
    """Folders of the tiny models that a benchmark starts from, and where it keeps what it builds."""

    clip: Path
    detector: Path
    mllm: Path
    work: Path

    @property
    def digest(self) -> str:
        """Of the three models' weights."""
        from pipeline.models.fingerprints import of_path

        parts = (of_path(self.clip, (".safetensors",)), of_path(self.detector / "detector.pt"),
                 of_path(self.mllm, (".safetensors",)))  # fmt: skip
        return "".join(part[:6] for part in parts)

    @cached_property
    def code(self) -> str:
        """Of the code that makes a row."""
        from pipeline.models.fingerprints import of_path

        root = Path(__file__).parents[2]
        files = sorted([*root.glob("*.py"), *(file for name in CODE for file in (root / name).rglob("*.py"))])
        return key_of([of_path(file) for file in files])[:12]

    @property
    def vit(self) -> Path:
        """The ViT distilled from the tiny CLIP."""
        from pipeline.bench.planted.families import VERSION
        from pipeline.models.fingerprints import of_path

        return self.work / f"vit-{VERSION}-{of_path(self.clip, ('.safetensors',))[:12]}"


def audit_of(
    setting: Setting, models: Models, pictures: Path, model: dict[str, Any], mode: str, regions: str = "roi_align"
) -> Audit:
    """The audit of a setting: the product's defaults with the tiny models."""
    return Audit.from_dict(
        {
            "data": {"source": "folder", "path": str(pictures)},
            "model": model,
            "caption": {"kind": "transformers", "name": str(models.mllm), "batch": 64},
            "propose": {"kind": "captions"},
            "detect": {
                "kind": "yolo_world",
                "name": str(models.detector / "detector.pt"),
                "text_model": f"local-dir:{models.clip}",
            },
            "embed": {"kind": "open_clip", "name": f"local-dir:{models.clip}", "regions": regions},
            "ablate": ABLATE[mode],
            "cache": str(models.work / "cache" / setting.audited.key),
            "classes": list(setting.classes),
            "device": "cpu",
            "seed": 0,
        }
    )


BUILT = "seconds"
"""A file beside a built model: how long it took, whichever run built it."""

ABLATE: dict[str, dict[str, Any]] = {
    "racing": {"mode": "racing", "budget": 100_000},
    "exhaustive": {"mode": "exhaustive", "budget": 100_000},
    "none": {"enabled": False},
}


def write_pictures(setting: Setting, models: Models) -> tuple[Path, list[Example]]:
    """The audited set as an image folder, once; the folder, and its examples in order of their numbers."""
    from PIL import Image

    from pipeline.planted import render

    examples = audited(setting)
    folder = models.work / "sets" / key_of([(e.label, repr(e.scene)) for e in examples])[:16]
    done = folder / "done"
    if not done.is_file():
        for number, example in enumerate(examples):
            path = folder / "images" / example.label / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(render(example.scene).image).save(path, compress_level=1)
        done.touch()
    return folder / "images", examples


def build_model(setting: Setting, models: Models) -> Path:
    """The setting's fine-tuned model, once."""
    from pipeline.bench.planted import families

    examples = training(setting)
    recipe = key_of(families.VERSION, setting.key, models.digest, [(e.label, repr(e.scene)) for e in examples])[:16]
    out = models.work / "models" / recipe
    if not (out / BUILT).is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        start = models.vit if setting.family == "vit" else models.clip
        began = time.perf_counter()
        families.finetune(start, out, examples, setting.classes, setting.family, setting.seed)
        (out / BUILT).write_text(f"{time.perf_counter() - began:.2f}\n", encoding="utf-8")
    return out


def run_chain(audit: Audit, out: Path, like: Path | None = None) -> dict[str, float]:
    """The stages up to the ranking, in this process; seconds by stage.

    like: the folder of an audit that differs in its section `ablate` alone: its tables up to there are taken over.
    """
    from pipeline import chain

    folder = chain.prepare(audit, out)
    if like is not None:
        for file in like.glob("*.parquet"):
            shutil.copy(file, out)
    context = chain.Context(audit, folder)
    seconds: dict[str, float] = {}

    def once(name: str) -> None:
        if name in ("report", "export") or (like is not None and name not in ("ablate", "rank")):
            return
        began = time.perf_counter()
        tally = chain.run_once(name, context)
        seconds[name] = time.perf_counter() - began
        chain.note(folder, name, [tally], seconds[name])

    def each(names: tuple[str, ...], ahead: tuple[str, ...]) -> None:
        if like is not None:
            return
        began = time.perf_counter()
        passed = [chain.run_pass(names, ahead, context, number) for number in range(len(chain.shards(context)))]
        for name in names:
            chain.gather(name, context, [tallies[name] for tallies in passed])
        for name, (tallies, share) in chain.by_stage(passed, time.perf_counter() - began).items():
            seconds[name] = seconds.get(name, 0.0) + share
            chain.note(folder, name, tallies, share)

    with chain.locked(folder):
        chain.chain(once, each)
    return {name: round(value, 2) for name, value in seconds.items()}


def modes_of(setting: Setting) -> tuple[str, ...]:
    """How a setting is audited: one in six, and the quick ones with a cue, exhaustively too, which costs most."""
    compared = int(setting.key, 16) % 6 == 0 or (bool(setting.planted) and setting in quick(setting.world))
    return ("racing", "exhaustive", "none") if compared else ("racing", "none")


def run_setting(setting: Setting, models: Models) -> dict[str, Any]:
    """One setting's row: what it is, whether it is valid, and what every method made of it."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    from pipeline.bench.planted import families, judge, methods
    from pipeline.context import Context
    from pipeline.store import AuditFolder

    pictures, examples = write_pictures(setting, models)
    folder = build_model(setting, models)
    row: dict[str, Any] = {
        "setting": asdict(setting),
        "key": setting.key,
        "what": setting.describe(),
        "build_seconds": float((folder / BUILT).read_text(encoding="utf-8")),
        "methods": {},
    }
    section = families.back_end(setting.family, folder)
    truth: judge.Truth | None = None
    first: Path | None = None
    for mode in modes_of(setting):
        out = models.work / "audits" / f"{setting.key}-{mode}"
        audit = audit_of(setting, models, pictures, section, mode)
        seconds = run_chain(audit, out, first)
        first = first or out
        audits = AuditFolder.open(out)
        context = Context(audit, audits)
        e = methods.Evidence(audits, audit, context.encoder, context.cache, audit.seed)
        if truth is None:
            numbers = [int(Path(path).stem) for path in audits.read("images")["path"].to_pylist()]
            truth = judge.Truth(setting, [examples[n] for n in numbers], context.model)
            gaps = judge.validity(setting, truth.examples, e.predicted)
            row["validity"] = [asdict(g) for g in gaps]
            row["valid"] = bool(gaps) and all(g.valid for g in gaps)
            row["accuracy"] = float((e.labels == e.predicted).mean())
            row["true_effects"] = [truth.effects(label, cue) for label, cue in setting.planted]
        findings = sorted(audits.read("findings").to_pylist(), key=worst_first)
        candidates = methods.findings_ranking(e, findings)
        name = {"none": "cuescope without ablation", "racing": "cuescope"}.get(mode, f"cuescope {mode}")
        row["methods"][name] = {
            **judge.judge_ranking(truth, candidates),
            **judge.judge_findings(truth, findings, candidates, audit.rank.smallest_effect),
            "forwards": audits.run()["forwards"]["ablate"] + len(examples),
            "edits": len(audits.read("edits")),
            "top_5": [[f["class"], f["cue_id"], f["verdict"]] for f in findings[:5]],
            "seconds": round(sum(seconds.values()), 2),
            "stages": seconds,
        }
        if mode == "none" and setting.design not in ("null", "association"):  # nothing for the others to find
            for method, rank in methods.PUBLISHED.items():
                began = time.perf_counter()
                row["methods"][method] = {
                    **judge.judge_ranking(truth, rank(e)),
                    "forwards": len(examples),
                    "seconds": round(time.perf_counter() - began, 2),
                }
    return row


def row_of(setting: Setting, models: Models) -> dict[str, Any]:
    """A setting's row, from the folder if it is there; an error becomes a row that says so."""
    file = models.work / "rows" / f"{setting.key}-{models.digest}-{models.code}.json"
    if file.is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    try:
        row = run_setting(setting, models)
    except Exception as error:  # one setting that fails must be seen, and must not end the others
        import traceback

        return {"setting": asdict(setting), "key": setting.key, "what": setting.describe(),
                "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(row, default=_plain) + "\n", encoding="utf-8")
    os.replace(part, file)
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def run_settings(
    settings: Sequence[Setting], models: Models, jobs: int, told: Callable[[int, dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Rows of all settings, in order; `jobs` processes of one thread each. `told` hears of each row as it comes."""
    from pipeline.bench.planted import families

    if any(s.family == "vit" for s in settings) and not models.vit.is_dir():
        models.work.mkdir(parents=True, exist_ok=True)
        families.make_vit(models.clip, models.vit)
    os.environ["OMP_NUM_THREADS"] = "1" if jobs > 1 else os.environ.get("OMP_NUM_THREADS", "2")
    # settings that share their pictures come one after another, so that the second finds the features made
    order = sorted(range(len(settings)), key=lambda n: (settings[n].audited.key, n))
    rows: dict[int, dict[str, Any]] = {}
    if jobs == 1:
        for done, number in enumerate(order):
            rows[number] = row_of(settings[number], models)
            told(done + 1, rows[number])
    else:
        batches: dict[str, list[int]] = {}
        for number in order:
            batches.setdefault(settings[number].audited.key, []).append(number)
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start) as pool:
            waiting = {pool.submit(_rows_of, [settings[n] for n in batch], models): batch for batch in batches.values()}
            from concurrent.futures import as_completed

            for future in as_completed(waiting):
                for number, row in zip(waiting[future], future.result(), strict=True):
                    rows[number] = row
                    told(len(rows), row)
    return [rows[number] for number in range(len(settings))]


def _start() -> None:
    from pipeline.quiet import quieten

    quieten()


def _rows_of(settings: Sequence[Setting], models: Models) -> list[dict[str, Any]]:
    return [row_of(setting, models) for setting in settings]

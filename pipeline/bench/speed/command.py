"""`cuescope bench all`: print a line a figure, write JSON, and the table of a document."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.bench.speed.lines import Line, figure
from pipeline.errors import UserError
from pipeline.models import devices
from pipeline.store import write_text

BEGIN, END = "<!-- speed: written by cuescope bench all -->", "<!-- end of speed -->"
BEGIN_GPU = "<!-- speed on a GPU: written by cuescope bench all --device cuda -->"
Bench = Callable[..., Iterator[Line]]
"""From quick, the folder of the tiny models and one to work in; those of ON_GPU also from `device`."""
ON_GPU = ("ceilings", "images", "regions", "detector", "ablation")
"""What can be measured on a GPU; the rest is the processor's affair."""


def benches() -> dict[str, Callable[[], Bench]]:
    """Each benchmark by name; imported when it is run."""

    def of(module: str, function: str) -> Callable[[], Bench]:
        def load() -> Bench:
            import importlib

            return getattr(importlib.import_module(f"pipeline.bench.speed.{module}"), function)

        return load

    return {
        "ceilings": of("ceilings", "bench_ceilings"),
        "images": of("images", "bench_images"),
        "regions": of("regions", "bench_regions"),
        "precision": of("precision", "bench_precision"),
        "detector": of("detector", "bench_detector"),
        "clusters": of("clusters", "bench_clusters"),
        "measure": of("measures", "bench_measures"),
        "ablation": of("edits", "bench_edits"),
        "incremental": of("again", "bench_again"),
        "start": of("start", "bench_start"),
        "profile": of("profile", "bench_profile"),
    }


def on_device(device: str) -> dict[str, Callable[[], Bench]]:
    """The benchmarks for a device, by name."""
    gpu = device != "cpu"

    def of(load: Callable[[], Bench], name: str) -> Callable[[], Bench]:
        return lambda: functools.partial(load(), device=device) if gpu else load()

    return {name: of(load, name) for name, load in benches().items() if (name in ON_GPU if gpu else name != "ceilings")}


def bench_speed(
    only: Sequence[str],
    quick: bool,
    models: Path,
    work: Path | None,
    out: Path | None,
    document: Path | None,
    device: str = "cpu",
) -> bool:
    """Run the benchmarks (all, or those in `only`), print and write; whether every target is met.

    Raises:
        UserError: `document` is not there or has no place for the table, or the device isn't there.
    """
    devices.pick(device)
    before, begin = _known(out), BEGIN if device == "cpu" else BEGIN_GPU
    if document is not None:
        _with_table(document, before, begin)  # said now rather than in an hour
    found: list[dict[str, Any]] = []
    about = machine(quick, device)
    chosen = on_device(device)
    with contextlib.ExitStack() as stack:
        base = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cuescope-speed-")))
        for name, load in chosen.items():
            if only and name not in only:
                found += [line for line in before if line["bench"] == name]
                continue
            folder = base / name
            folder.mkdir(parents=True, exist_ok=True)
            for line in load()(quick, models, folder):
                print(line.words, flush=True)
                found.append({**line.to_dict(), **about})
            rest = list(chosen)[list(chosen).index(name) + 1 :]
            _write(found + [line for line in before if line["bench"] in rest], out, document, begin)
    mine = [line for line in found if not only or line["bench"] in only]
    missed = [line for line in mine if not line["holds"]]
    print(f"{len(missed)} of {sum(line['target'] is not None for line in mine)} targets missed")
    return not missed


def _write(lines: list[dict[str, Any]], out: Path | None, document: Path | None, begin: str) -> None:
    """After each benchmark: a run that is cut off keeps what it has."""
    if out is not None:
        write_text(out, json.dumps(lines, indent=1) + "\n")
    if document is not None:
        write_text(document, _with_table(document, lines, begin))


def _known(out: Path | None) -> list[dict[str, Any]]:
    """The figures that a file holds already."""
    return list(json.loads(out.read_text(encoding="utf-8"))) if out is not None and out.is_file() else []


def machine(quick: bool, device: str = "cpu") -> dict[str, Any]:
    """Where, when and at what size a figure was taken."""
    said = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    if device != "cpu":
        import torch

        said = f"{torch.cuda.get_device_name(device)}, {devices.precision('auto', device)}, {said}"
    return {
        "date": datetime.date.today().isoformat(),
        "machine": said,
        "quick": quick,
    }


def _with_table(document: Path, lines: Sequence[dict[str, Any]], mark: str) -> str:
    """The document with what stands between the marks replaced by the table."""
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    before, begin, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{document} has no place for the table. Write these two lines into it: {mark} and {END}")
    rows = ["| what | measured | target | |", "| --- | ---: | --- | --- |"]
    for line in lines:
        way = "" if line["target"] is None else f"{'>=' if line['at_least'] else '<='} {figure(line['target'])}"
        verdict = "" if line["target"] is None else "holds" if line["holds"] else "**missed**"
        setting = "; ".join([line["setting"]] * bool(line["setting"]) + ["small size"] * line["quick"])
        what = f"{line['bench']}: {line['what']}" + (f" ({setting})" if setting else "")
        rows.append(f"| {what} | {figure(line['value'])} {line['unit']} | {way} | {verdict} |")
    said = "; ".join(dict.fromkeys(f"{line['date']}, {line['machine']}" for line in lines))
    return f"{before}{mark}\n{said}\n\n" + "\n".join(rows) + f"\n{END}{after}"

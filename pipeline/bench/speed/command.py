"""`cuescope bench speed` and the single benchmarks: print a line a figure, write JSON, and the table of a document."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.bench.speed.lines import Line, figure
from pipeline.store import write_text

BEGIN, END = "<!-- speed: written by cuescope bench speed -->", "<!-- end of speed -->"
Bench = Callable[[bool, Path, Path], Iterator[Line]]


def benches() -> dict[str, Callable[[], Bench]]:
    """Each benchmark by name; imported when it is run."""

    def of(module: str, function: str) -> Callable[[], Bench]:
        def load() -> Bench:
            import importlib

            return getattr(importlib.import_module(f"pipeline.bench.speed.{module}"), function)

        return load

    return {
        "images": of("images", "bench_images"),
        "regions": of("regions", "bench_regions"),
        "detector": of("detector", "bench_detector"),
        "clusters": of("clusters", "bench_clusters"),
        "measure": of("measures", "bench_measures"),
        "ablation": of("edits", "bench_edits"),
        "incremental": of("again", "bench_again"),
        "start": of("start", "bench_start"),
    }


def bench_speed(
    only: Sequence[str], quick: bool, models: Path, work: Path | None, out: Path | None, document: Path | None
) -> bool:
    """Run the benchmarks (all, or those in `only`), print and write; whether every target is met."""
    found: list[Line] = []
    with contextlib.ExitStack() as stack:
        base = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cuescope-speed-")))
        for name, load in benches().items():
            if only and name not in only:
                continue
            folder = base / name
            folder.mkdir(parents=True, exist_ok=True)
            for line in load()(quick, models, folder):
                print(line.words, flush=True)
                found.append(line)
    missed = [line for line in found if not line.holds]
    print(f"{len(missed)} of {sum(line.target is not None for line in found)} targets missed")
    about = machine()
    if out is not None:
        write_text(out, json.dumps({**about, "quick": quick, "lines": [x.to_dict() for x in found]}, indent=1) + "\n")
    if document is not None:
        write_text(document, with_table(document.read_text(encoding="utf-8"), found, about, quick))
    return not missed


def machine() -> dict[str, Any]:
    """Where and when."""
    return {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def with_table(text: str, lines: Sequence[Line], about: dict[str, Any], quick: bool) -> str:
    """The text with what stands between the marks replaced by the table.

    Raises:
        ValueError: the text has no marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document has no place for the table: {BEGIN} and {END}")
    rows = ["| what | measured | target | |", "| --- | ---: | --- | --- |"]
    for line in lines:
        way = "" if line.target is None else f"{'>=' if line.at_least else '<='} {figure(line.target)}"
        verdict = "" if line.target is None else "holds" if line.holds else "**missed**"
        what = f"{line.bench}: {line.what}" + (f" ({line.setting})" if line.setting else "")
        rows.append(f"| {what} | {figure(line.value)} {line.unit} | {way} | {verdict} |")
    said = f"{about['date']}, {about['cores']} cores, {about['machine']}, Python {about['python']}"
    said += "; small sizes (--quick)." if quick else "."
    return f"{before}{BEGIN}\n{said}\n\n" + "\n".join(rows) + f"\n{END}{after}"

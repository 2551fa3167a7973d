"""The report of a thousand findings in a real browser: its size, its first paint, and how long a search takes.

The findings and pictures are made up and drawn in no time; the page is the one that audits write. First paint is the
browser's own `first-contentful-paint`, counted from the start of navigation to the file; a search is the time from the
key to the next frame.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.bench.report.synthetic import report
from pipeline.errors import UserError
from pipeline.report.render import render_report
from pipeline.store import write_text

FINDINGS, CLASSES, RUNS = 1000, 50, 5
MOST_BYTES = 40_000_000
MOST_PAINT = 2.0
"""Seconds, the median of RUNS openings."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MEASURE = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  const loaded = performance.getEntriesByType("navigation")[0].loadEventEnd;
  const search = document.getElementById("search");
  const began = performance.now();
  search.value = "owl";
  search.dispatchEvent(new Event("input"));
  await frame();
  const searched = performance.now() - began;
  return { paint, loaded, searched, nodes: document.getElementsByTagName("*").length };
}"""


def bench_report(findings: int, out: Path | None) -> bool:
    """Run, print, and write where asked; whether size and first paint are within their targets.

    Raises:
        UserError: there is no browser to run, or no playwright to steer it.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise UserError("This benchmark steers a browser by playwright: pip install playwright.") from None
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError(f"This benchmark needs a browser on the PATH, one of {', '.join(BROWSERS)}.")
    began = time.perf_counter()
    text = render_report(report(classes=CLASSES, findings=findings))
    seconds = time.perf_counter() - began
    work = Path(tempfile.mkdtemp(prefix="cuescope-report-"))
    try:
        file = work / "report.html"
        file.write_text(text, encoding="utf-8")
        with sync_playwright() as playwright:
            started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
            runs = [measured(started, file) for _ in range(RUNS)]
            started.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found = verdict(findings, len(text.encode()), seconds, runs)
    print(in_words(found))
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
        print(out)
    return bool(found["holds"])


def measured(browser: Any, file: Path) -> dict[str, float]:
    """One opening: seconds until first paint, until loaded, and of a search; and the elements of the document."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(file.as_uri(), wait_until="load")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    got = page.evaluate(MEASURE)
    page.close()
    return {"nodes": got["nodes"], **{name: got[name] / 1000 for name in ("paint", "loaded", "searched")}}


def verdict(findings: int, size: int, seconds: float, runs: list[dict[str, float]]) -> dict[str, Any]:
    """The medians, and whether size and first paint are within their targets."""
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {
        "command": "cuescope bench report",
        "findings": findings,
        "bytes": size,
        "most_bytes": MOST_BYTES,
        "rendered_s": round(seconds, 2),
        "first_paint_s": round(middle["paint"], 3),
        "most_paint_s": MOST_PAINT,
        "loaded_s": round(middle["loaded"], 3),
        "search_s": round(middle["searched"], 3),
        "elements": int(middle["nodes"]),
        "runs": runs,
        "holds": size < MOST_BYTES and middle["paint"] < MOST_PAINT,
    }


def in_words(found: dict[str, Any]) -> str:
    """The same for the terminal."""
    return (
        f"{found['findings']:,} findings: {found['bytes'] / 1e6:.1f} MB (at most {found['most_bytes'] / 1e6:.0f}), "
        f"written in {found['rendered_s']:.1f} s\n"
        f"first paint {found['first_paint_s']:.2f} s (at most {found['most_paint_s']:g}), loaded in "
        f"{found['loaded_s']:.2f} s, a search takes {found['search_s']:.2f} s; medians of {len(found['runs'])}, "
        f"{found['elements']:,} elements: {'holds' if found['holds'] else 'MISSED'}"
    )

"""`cuescope bench planted`: run the settings of one or both worlds, print and write the scoreboard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.bench.planted import scoreboard
from pipeline.bench.planted.run import Models, run_settings
from pipeline.bench.planted.settings import World, quick, settings, some_of
from pipeline.errors import UserError

Choice = Literal["both", "development", "held-out"]


def bench_planted(
    models: Path,
    work: Path,
    out: Path | None,
    readme: Path | None,
    world: Choice,
    is_quick: bool,
    jobs: int,
    every: int,
) -> bool:
    """Run, print, and write where asked; whether every promise that could be measured holds.

    Raises:
        UserError: the tiny models aren't there.
    """
    chosen = Models(models / "clip", models / "detector", models / "mllm", work)
    for folder in (chosen.clip, chosen.detector, chosen.mllm):
        if not folder.is_dir():
            raise UserError(f"There is no {folder}: the benchmark starts from the tiny models. Run it from a clone.")
    worlds: list[World] = list(get_args(World)) if world == "both" else [world]
    rows: dict[str, Sequence[dict[str, Any]]] = {}
    for name in worlds:
        these = some_of(quick(name) if is_quick else settings(name), every)
        began = time.monotonic()

        def told(done: int, row: dict[str, Any], total: int = len(these), began: float = began) -> None:
            spent = time.monotonic() - began
            print(f"{spent:6.0f} s  {done:3d}/{total}  {in_a_line(row)}", flush=True)

        rows[name] = run_settings(these, chosen, jobs, told)
    command = "cuescope bench planted" + (" --quick" if is_quick else "") + (
        f" --world {world}" if world != "both" else ""
    ) + (f" --every {every}" if every > 1 else "")  # fmt: skip
    board = scoreboard.scoreboard(rows, command)
    print(scoreboard.markdown(board))
    if out is not None:
        for path in scoreboard.write(board, out):
            print(path)
    if readme is not None:
        scoreboard.write_into(readme, board)
    if is_quick:
        return scoreboard.quick_holds([row for these in rows.values() for row in these])
    return all(p["holds"] is not False for these in board["promises"].values() for p in these)


def in_a_line(row: dict[str, Any]) -> str:
    """What a setting came to."""
    if "error" in row:
        return f"{row['what']}: FAILED, {row['error']}"
    ours = row["methods"][scoreboard.OURS]
    valid = {True: "valid", False: "not valid"}[row["valid"]] if row["setting"]["planted"] else "null"
    return (
        f"{row['what']}: {valid}, P@10 {ours['precision_at_10']:.1f}, first {'yes' if ours['at_1'] else 'no'}, "
        f"{ours['confirmed']} confirmed, {len(ours['false'])} false, {ours['edits']} edits"
    )

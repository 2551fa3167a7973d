"""Ceilings: what a GPU and the machine round it could do, for the ratios that are measured there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.bench.speed.lines import Line, seconds_of
from pipeline.models import devices

PRODUCT = 8192
"""Rows of the matrices whose product shows what the device can do."""
COPIED = 1 << 28
"""Bytes that are copied to the device, and within it."""


def bench_ceilings(quick: bool, models: Path, work: Path, device: str = "cuda") -> Iterator[Line]:
    """Matrix products in the precision that models take there, copies to the device and on it."""
    import torch

    precision = devices.precision("auto", device)
    a = torch.randn(PRODUCT, PRODUCT, device=device, dtype=devices.dtype(precision))

    def seconds(work: Callable[[], Any]) -> float:
        def whole() -> None:
            work()
            torch.cuda.synchronize()

        whole()
        return seconds_of(whole, 10)

    flops = 2 * PRODUCT**3 / seconds(lambda: a @ a)
    yield Line("ceilings", f"matrix product, {precision}, {PRODUCT} rows", flops / 1e12, unit="TFLOP/s")
    there = torch.empty(COPIED, dtype=torch.uint8, device=device)
    here = torch.empty(COPIED, dtype=torch.uint8)
    for name, source in (("pinned", here.pin_memory()), ("not pinned", here)):
        copied = COPIED / seconds(lambda: there.copy_(source, non_blocking=True))  # noqa: B023
        yield Line("ceilings", f"copies to the device, {name}", copied / 1e9, unit="GB/s")
    moved = 2 * COPIED / seconds(there.clone)
    yield Line("ceilings", "copies on the device, read and written", moved / 1e9, unit="GB/s")

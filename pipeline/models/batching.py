"""How much goes through a model at once: what its memory takes, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Literal, TypeVar

from pipeline.errors import UserError
from pipeline.models import devices

Batch = devices.Batch | Literal["auto"]

START = 16
MOST = 1024
"""On a GPU a batch grows by doubling, to MOST; on a CPU, where a larger one is no faster, it stays as it starts."""
TURNS = 4
"""What is prepared beside the forward before it comes in so many batches at least, but in none smaller than START."""
SIGNS = (
    "out of memory",  # cuda, mps
    "can't allocate memory",  # torch on a CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Failed to allocate memory",  # ONNX Runtime
)

Part = TypeVar("Part")


class Batches:
    """The size of one model's batches: a number is the most, "auto" grows from `start`; out of memory, it is halved."""

    def __init__(self, batch: int | Literal["auto"], start: int = START) -> None:
        self._size = start if batch == "auto" else batch
        self._most = MOST if batch == "auto" else batch

    def run(
        self,
        count: int,
        forward: Callable[[Any], Part],
        device: str = "cpu",
        prepare: Callable[[slice], Any] | None = None,
    ) -> list[Part]:
        """What `forward` makes of each batch (a slice of range(count)), in order.

        Args:
            count: how many items there are.
            forward: one batch through the model; called again with fewer items where memory ran out.
            device: where the model runs, a torch device.
            prepare: what the processor does for a batch first; `forward` gets its result in place of the slice. For
                another device the next batch is prepared on a thread while this one runs.

        Raises:
            UserError: one item alone is too much for the memory.
        """
        beside = ThreadPoolExecutor(1) if prepare is not None and device != "cpu" else None
        most = count if beside is None else max(START, -(-count // TURNS))

        def batch_from(first: int) -> slice:
            return slice(first, min(first + min(self._size, most), count))

        parts: list[Part] = []
        done = 0
        ahead: tuple[slice, Future[Any]] | None = None
        with beside or nullcontext():
            while done < count:
                rows, coming = ahead or (batch_from(done), None)
                ahead = None
                tried = rows.stop - rows.start
                try:
                    batch = coming.result() if coming else prepare(rows) if prepare else rows
                    if beside and rows.stop < count:
                        after = batch_from(rows.stop)
                        assert prepare is not None
                        ahead = after, beside.submit(prepare, after)
                    parts.append(forward(batch))
                except Exception as error:  # torch's allocators and ONNX Runtime raise different types
                    if not out_of_memory(error):
                        raise
                    if tried == 1:
                        raise UserError(
                            f"device: {device} has too little memory for one image at a time. "
                            "Choose a smaller model, precision: bf16, or another device."
                        ) from error
                    self._size = self._most = tried // 2
                else:
                    done = rows.stop
                    if tried == self._size < self._most and device != "cpu":
                        self._size = min(2 * self._size, self._most)
                    continue
                ahead = batch = None  # smaller ones are prepared anew
                _free(device)  # here the error, and with it the tensors that its frames hold, are gone
        return parts


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on any device."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in SIGNS)


def _free(device: str) -> None:
    import torch

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()

"""How much goes through a model at once: what its memory takes, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Literal, TypeVar

from pipeline.errors import UserError
from pipeline.models import devices

Batch = devices.Batch | Literal["auto"]

START = 64
MOST = 1024
"""On a GPU a batch grows by doubling, to MOST; on a CPU, where a larger one is no faster, it stays as it starts."""
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

    def run(self, count: int, forward: Callable[[slice], Part], device: str = "cpu") -> list[Part]:
        """What `forward` makes of each batch (a slice of range(count)), in order.

        Args:
            count: how many items there are.
            forward: one batch through the model; called again with fewer items where memory ran out.
            device: where the model runs, a torch device.

        Raises:
            UserError: one item alone is too much for the memory.
        """
        parts: list[Part] = []
        done = 0
        while done < count:
            rows = slice(done, min(done + self._size, count))
            tried = rows.stop - rows.start
            try:
                parts.append(forward(rows))
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

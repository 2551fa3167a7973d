"""Which device a model runs on, in which precision, and how much at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Batch = Annotated[int, Field(ge=1)]  # how many items go through a model together
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def pick(device: str) -> str:
    """A torch device for a word of the configuration: "auto" is cuda where there is one, then mps, then cpu.

    Raises:
        UserError: no such kind of device, or this machine (or this build of torch) doesn't have it.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except (RuntimeError, ValueError):
        raise UserError(f"device: '{device}' is no device. Use auto, cpu, cuda, cuda:1 or mps.") from None
    if wanted.type == "cpu":
        return device
    if wanted.type == "cuda":
        there = torch.cuda.is_available() and (wanted.index or 0) < torch.cuda.device_count()
    else:
        there = wanted.type == "mps" and torch.backends.mps.is_available()
    if not there:
        raise UserError(f"device: torch finds no '{device}' on this machine. Use auto or cpu.")
    return device


def precision(wanted: Precision, device: str) -> Precision:
    """The numbers a model computes in: "auto" is bf16 on cuda (fp16 on cards without it), fp32 elsewhere.

    Raises:
        UserError: `device` isn't there.
    """
    if wanted != "auto":
        return wanted
    if device == "cpu" or not pick(device).startswith("cuda"):
        return "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def pinned(tensor: Tensor, device: str) -> Tensor:
    """A tensor of the processor as a copy to this device starts best: cuda fetches pinned memory by itself."""
    return tensor.pin_memory() if device.startswith("cuda") else tensor


def dtype(precision: Precision) -> Any:
    """The torch type of a precision that isn't "auto"."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

"""Batches: they shrink when memory runs out, grow on a GPU, and precision follows the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.models import devices
from pipeline.models.batching import Batches
from pipeline.models.labels import Labels
from pipeline.models.torch_classifier import Loaded, TorchClassifier


class Card:
    """A memory that holds so many images at once, and what was tried with it."""

    def __init__(self, room: int, error: Exception | None = None) -> None:
        self.room, self.tried = room, list[int]()
        self.error = error or torch.OutOfMemoryError("no room")

    def forward(self, rows: slice) -> list[int]:
        self.tried.append(rows.stop - rows.start)
        if self.tried[-1] > self.room:
            raise self.error
        return list(range(rows.start, rows.stop))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("whatever it says"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(error) -> None:
    card, batches = Card(5, error), Batches(32)
    parts = batches.run(40, card.forward)
    assert [index for part in parts for index in part] == list(range(40))
    assert card.tried == [32, 16, 8, *[4] * 10]
    batches.run(8, card.forward)
    assert card.tried[-2:] == [4, 4]  # what fits is remembered


def test_a_batch_grows_on_a_gpu_until_memory_runs_out_and_not_beyond() -> None:
    card, batches = Card(300), Batches("auto")
    parts = batches.run(2000, card.forward, "cuda")
    assert [index for part in parts for index in part] == list(range(2000))
    assert card.tried[:4] == [64, 128, 256, 512] and set(card.tried[4:-1]) == {256}


def test_a_batch_keeps_its_size_on_a_cpu_and_never_passes_a_number_given() -> None:
    for batches, device, size in ((Batches("auto"), "cpu", 64), (Batches(50), "cuda", 50)):
        card = Card(10_000)
        batches.run(500, card.forward, device)
        assert max(card.tried) == size


def test_an_image_that_does_not_fit_alone_is_said_plainly() -> None:
    with pytest.raises(UserError, match=r"cpu has too little memory .* precision"):
        Batches(4).run(3, Card(0).forward)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        Batches(4).run(3, Card(0, RuntimeError("shapes don't fit")).forward)


def test_a_classifier_answers_the_same_where_memory_is_short() -> None:
    def make(room: int) -> TorchClassifier:
        def network(pixels):
            if len(pixels) > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.stack([pixels.mean((1, 2, 3)), pixels.amax((1, 2, 3))], dim=1)

        loaded = Loaded(
            network,
            lambda images: torch.stack([torch.from_numpy(image).float().permute(2, 0, 1) for image in images]),
            Labels(((0,), (1,))),
        )
        return TorchClassifier("test", dict, lambda *_: loaded, 2, "cpu", "auto", Batches(16))

    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (21, 8, 8, 3), dtype=np.uint8))
    np.testing.assert_array_equal(make(3).logits(images), make(100).logits(images))


@pytest.mark.parametrize(
    ("device", "has_bf16", "expected"), [("cuda", True, "bf16"), ("cuda", False, "fp16"), ("cpu", True, "fp32")]
)
def test_precision_follows_the_device_unless_it_is_given(monkeypatch, device, has_bf16, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert devices.precision("auto", device) == expected
    assert devices.precision("fp32", device) == "fp32"
    if device == "cuda":
        assert devices.precision("auto", "auto") == expected


def test_the_fingerprint_follows_the_precision_but_not_the_device(monkeypatch) -> None:
    def of(precision, device="cpu"):
        return TorchClassifier("test", dict, lambda *_: None, 2, device, precision, Batches(1)).fingerprint

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert of("auto") == of("fp32") == of("fp32", "cuda")
    assert of("auto", "cuda") == of("bf16") != of("fp32")

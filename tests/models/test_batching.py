"""Batches: they shrink when memory runs out, grow on a GPU, and precision follows the device."""

from __future__ import annotations

import threading

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
    assert card.tried[:6] == [16, 32, 64, 128, 256, 512] and set(card.tried[6:-1]) == {256}


def test_a_batch_keeps_its_size_on_a_cpu_and_never_passes_a_number_given() -> None:
    for batches, device, size in ((Batches("auto"), "cpu", 16), (Batches(50), "cuda", 50)):
        card = Card(10_000)
        batches.run(500, card.forward, device)
        assert max(card.tried) == size


def test_the_next_batch_is_prepared_while_one_runs_on_another_device() -> None:
    prepared = {number: threading.Event() for number in range(4)}

    def prepare(rows: slice) -> list[int]:
        prepared[rows.start // 64].set()
        return list(range(rows.start, rows.stop))

    def forward(batch: list[int]) -> list[int]:
        after = batch[0] // 64 + 1
        assert after == 4 or prepared[after].wait(30)  # it comes only if the two go on at once
        return batch

    parts = Batches(64).run(256, forward, "cuda", prepare)
    assert [index for part in parts for index in part] == list(range(256))


def test_on_the_processor_a_batch_is_prepared_when_it_is_its_turn() -> None:
    went = []
    Batches(2).run(4, lambda batch: went.append(("forward", batch)), "cpu", lambda rows: went.append("prepare"))
    assert went == ["prepare", ("forward", None)] * 2


@pytest.mark.parametrize("room", [1, 7, 64, 10_000])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_what_is_prepared_comes_once_and_in_order_however_little_fits(room: int, count: int) -> None:
    def forward(batch: range) -> list[int]:
        if len(batch) > room:
            raise torch.OutOfMemoryError("no room")
        return list(batch)

    parts = Batches("auto").run(count, forward, "cuda", lambda rows: range(rows.start, rows.stop))
    assert [index for part in parts for index in part] == list(range(count))


def test_a_fault_while_a_batch_is_prepared_is_told() -> None:
    def prepare(rows: slice) -> slice:
        if rows.start:
            raise UserError("no such picture")
        return rows

    with pytest.raises(UserError, match="no such picture"):
        Batches(4).run(8, lambda batch: batch, "cuda", prepare)


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

"""Rendered training pictures with their labels, in shards that a second process writes ahead."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from .. import (
    CASTS,
    CONCEPTS,
    VISIBLE,
    Scene,
    describe,
    render,
    sample_scene,
    truth,
)

PHRASES: tuple[str, ...] = tuple(c.phrase for c in CONCEPTS)
MAX_BOXES = 8
N_CAPTIONS = 3
SHARD_SIZE = 2000

# Streams of randomness: no held-out scene can come from the stream of a training scene.
TRAINING, HELD_OUT = 1, 2

TEMPLATES: tuple[str, ...] = (
    "{}",
    "a {}",
    "the {}",
    "a photo of {}",
    "a photo of a {}",
    "a photo of the {}",
    "a picture of a {}",
    "an image of a {}",
    "a picture with {}",
    "a picture with a {} in it",
    "there is a {}",
    "a photo with a {}",
)


@dataclass(frozen=True)
class Shard:
    """n pictures and what is in them.

    images:    uint8 (n, size, size, 3), RGB.
    truths:    bool (n, len(PHRASES)): which concepts hold.
    captions:  str (n, N_CAPTIONS).
    boxes:     float32 (n, MAX_BOXES, 4), normalised xyxy of the visible part; zeros where there is none.
    labels:    int16 (n, MAX_BOXES), index into PHRASES (objects and text overlays); -1 where there is none.
    n_objects: int16 (n,), objects placed in the scene, visible or not.
    mirror:    bool (n,): a mirror image keeps every label (no text in it).
    """

    images: np.ndarray
    truths: np.ndarray
    captions: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    n_objects: np.ndarray
    mirror: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def save(self, path: Path) -> None:
        """Write-then-rename, so that a reader never sees half a shard."""
        part = path.with_suffix(".part.npz")
        np.savez(part, **{f.name: getattr(self, f.name) for f in fields(self)})
        os.replace(part, path)

    @classmethod
    def load(cls, path: Path) -> Shard:
        with np.load(path) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls)})

    @classmethod
    def join(cls, shards: Sequence[Shard]) -> Shard:
        return cls(**{f.name: np.concatenate([getattr(s, f.name) for s in shards]) for f in fields(cls)})


def articled(text: str) -> str:
    """`a apple` -> `an apple`, in a prompt."""
    words = text.split(" ")
    for i in range(len(words) - 1):
        if words[i] in ("a", "an") and words[i + 1]:
            words[i] = "an" if words[i + 1][0] in "aeiou" else "a"
    return " ".join(words)


def prompt(phrase: str, template: str) -> str:
    """The phrase in the template (one `{}`), with its article right."""
    return articled(template.format(phrase))


def concept_indices(kind: str) -> np.ndarray:
    """Indices into PHRASES of the concepts of a kind: int64 (k,)."""
    return np.array([i for i, c in enumerate(CONCEPTS) if c.kind == kind], dtype=np.int64)


def sample_mixed(rng: np.random.Generator) -> Scene:
    """A training scene: half the world as it is, a third single objects (small, tinted, tilted or noisy more often
    than in the world, for these are the hardest), the rest close-ups.

    Close-ups make crops of a detection and RoIAlign features (RegionCLIP, arXiv 2112.09106) feel at home.
    """
    u = rng.random()
    if u < 0.5:
        return sample_scene(rng)
    if u < 0.88:
        odd = rng.random(4)
        return sample_scene(
            rng,
            n_objects=(1, 1),
            sizes=(0.12, 0.22) if odd[0] < 0.3 else (0.2, 0.5),
            cast=str(rng.choice(CASTS[1:])) if odd[1] < 0.25 else "random",
            roll=float(rng.uniform(12, 28) * rng.choice((-1, 1))) if odd[2] < 0.25 else None,
            noise=float(rng.uniform(0.08, 0.13)) if odd[3] < 0.15 else None,
        )
    return sample_scene(rng, n_objects=(1, 2), zoom=float(rng.uniform(1.4, 2.1)))


def render_shard(scenes: Sequence[Scene], rng: np.random.Generator, size: int) -> Shard:
    """Render the scenes at `size` px and write down their labels."""
    n = len(scenes)
    index = {phrase: i for i, phrase in enumerate(PHRASES)}
    overlays = concept_indices("overlay")
    images = np.zeros((n, size, size, 3), np.uint8)
    truths = np.zeros((n, len(PHRASES)), bool)
    boxes = np.zeros((n, MAX_BOXES, 4), np.float32)
    labels = np.full((n, MAX_BOXES), -1, np.int16)
    captions = []
    for i, scene in enumerate(scenes):
        picture = render(scene, size)
        images[i] = picture.image
        holds = truth(scene)
        truths[i] = [holds[phrase] for phrase in PHRASES]
        captions.append([describe(scene, rng) for _ in range(N_CAPTIONS)])
        found = [
            (index[placed.name], box)
            for placed, box, visible in zip(scene.objects, picture.boxes, picture.visible, strict=True)
            if visible >= VISIBLE and placed.name in index
        ]
        found += [
            (next(int(k) for k in overlays if PHRASES[k].endswith(overlay.kind)), box)
            for overlay, box in zip(scene.overlays, picture.overlay_boxes, strict=True)
        ]
        for j, (label, box) in enumerate(found[:MAX_BOXES]):
            labels[i, j], boxes[i, j] = label, box
    return Shard(
        images=images,
        truths=truths,
        captions=np.array(captions),
        boxes=boxes,
        labels=labels,
        n_objects=np.array([len(s.objects) for s in scenes], np.int16),
        mirror=np.array([not s.overlays for s in scenes], bool),
    )


SAMPLERS = {"mixed": sample_mixed, "world": sample_scene}
"""Training scenes: with single objects and close-ups (for a CLIP), or the world as it is (for a detector)."""


def training_shard(seed: int, number: int, n: int = SHARD_SIZE, size: int = 96, scenes: str = "mixed") -> Shard:
    """The `number`-th shard of the training stream of `seed`, of the SAMPLERS `scenes`; always the same."""
    rng = np.random.default_rng([TRAINING, seed, number, *([] if scenes == "mixed" else [1])])
    return render_shard([SAMPLERS[scenes](rng) for _ in range(n)], rng, size)


def held_out_shard(seed: int, n: int, size: int = 96, *, single: bool = False) -> Shard:
    """Scenes of the trained vocabulary that no training saw: the world as it is, or one object a picture."""
    rng = np.random.default_rng([HELD_OUT, seed, int(single)])
    scenes = [sample_scene(rng, n_objects=(1, 1) if single else (1, 4)) for _ in range(n)]
    return render_shard(scenes, rng, size)


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard_{number:05d}.npz"


def _produce(folder: Path, seed: int, n_shards: int, shard_size: int, scenes: str) -> None:
    os.nice(5)
    for number in range(n_shards):
        path = _shard_path(folder, number)
        if not path.exists():
            training_shard(seed, number, shard_size, scenes=scenes).save(path)


def start_producer(
    folder: Path, seed: int, n_shards: int, shard_size: int = SHARD_SIZE, scenes: str = "mixed"
) -> BaseProcess:
    """Render shards 0..n_shards-1 into `folder` in a process of its own; shards already there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_produce, args=(folder, seed, n_shards, shard_size, scenes), daemon=True)
    process.start()
    return process


def shifted(images: np.ndarray, boxes: np.ndarray, dx: int, dy: int) -> tuple[np.ndarray, np.ndarray]:
    """Move pictures (n, s, s, 3) by some pixels, edges repeated, and their normalised boxes with them."""
    pad = max(abs(dx), abs(dy))
    size = images.shape[1]
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    moved = padded[:, pad - dy : pad - dy + size, pad - dx : pad - dx + size]
    return moved, np.clip(boxes + np.array([dx, dy, dx, dy], np.float32) / size, 0, 1)


def mirrored(images: np.ndarray, boxes: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirror the pictures at bool (n,) `which`, left to right, and their normalised boxes with them."""
    images, boxes = images.copy(), boxes.copy()
    images[which] = images[which, :, ::-1]
    boxes[which] = boxes[which][..., [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    return images, boxes.astype(np.float32)


class Pool:
    """The shards that are ready, joined in memory; grows as the producer writes.

    Examples (uint8 pictures of 96 px) are 28 kB each: 60,000 are 1.7 GB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: list[Shard] = []

    def refresh(self) -> int:
        """Take in what is new; returns the number of pictures."""
        while (path := _shard_path(self.folder, len(self.shards))).exists():
            self.shards.append(Shard.load(path))
        return len(self)

    def __len__(self) -> int:
        return sum(len(s) for s in self.shards)

    def wait(self, producer: BaseProcess) -> None:
        """Until there is a first shard. Raises RuntimeError when the producer ended without one."""
        while not self.refresh():
            if not producer.is_alive() and not self.refresh():
                raise RuntimeError("the process that renders training pictures ended early")
            time.sleep(0.2)

    def forever(self, rng: np.random.Generator, size: int) -> Iterator[Shard]:
        """Batches without end, over ever more shards."""
        while True:
            self.refresh()
            n_shards = len(self.shards)
            for batch in self.batches(rng, size):
                yield batch
                # Start anew once the pool has grown by a quarter, not after a pass over the little there was.
                if self.has(n_shards + max(1, n_shards // 4)):
                    break

    def has(self, n_shards: int) -> bool:
        """Whether that many shards are written."""
        return _shard_path(self.folder, n_shards - 1).exists()

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[Shard]:
        """One pass in random order over what is ready now; the last short batch is dropped."""
        where = np.concatenate([[(k, i) for i in range(len(s))] for k, s in enumerate(self.shards)])
        rng.shuffle(where)
        for start in range(0, len(where) - size + 1, size):
            yield self.take(where[start : start + size])

    def take(self, where: np.ndarray) -> Shard:
        """The examples at int (m, 2) pairs of (shard, row)."""
        return Shard(
            **{f.name: np.stack([getattr(self.shards[k], f.name)[i] for k, i in where]) for f in fields(Shard)}
        )

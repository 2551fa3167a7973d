"""A data set of any size from the rendered world: small pictures, with captions and boxes in a manifest.

Drawing a scene takes longer than all that an audit with free models does to its picture. So some hundreds of scenes are
drawn, and each picture is one of them in a form of its own: mirrored or not, in another light, with other noise, and
with a bar of grey at its left that tells its class. A red patch goes with the first class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.planted import describe, render, sample_scene
from pipeline.planted.captions import VISIBLE

SIDE = 48
SCENES = 400
CLASSES = ("sailboat", "car", "bird", "cup")
BAR = 4  # pixels
PATCH = np.array((225, 25, 25), dtype=np.int16)
WITH_PATCH = (0.6, 0.08)
"""Share of the first class's pictures that show the patch, and of the others'."""
PER_FOLDER = 1000


def level(number: int) -> int:
    """The grey of a class's bar."""
    return 40 + 50 * number


def write_set(folder: Path, number: int, seed: int = 0) -> Path:
    """Write `number` pictures and their manifest.parquet; returns the manifest. The first ones of a larger set are
    those of a smaller one."""
    rng = np.random.default_rng([seed, 1])
    scenes = []
    for index in range(SCENES):
        scene = sample_scene(rng, objects=[CLASSES[index % len(CLASSES)], "buoy"], overlay=False)
        scenes.append((scene, render(scene, SIDE), describe(scene, rng)))
    schema = pa.schema({"path": pa.string(), "label": pa.string(), "caption": pa.string(),
                        "box_labels": pa.list_(pa.string()), "boxes": pa.list_(pa.list_(pa.float64()))})  # fmt: skip
    manifest = folder / "manifest.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(manifest, schema) as writer:
        for first in range(0, number, PER_FOLDER):
            (folder / f"{first // PER_FOLDER:05d}").mkdir(exist_ok=True)
            rows = []
            for index in range(first, min(first + PER_FOLDER, number)):
                scene, picture, caption = scenes[index % SCENES]
                path = f"{first // PER_FOLDER:05d}/{index:07d}.png"
                own = np.random.default_rng([seed, 2, index])
                label = CLASSES[index % len(CLASSES)]
                image, box, mirrored = _own_form(picture.image, label, own)
                Image.fromarray(image).save(folder / path, compress_level=1)
                shown = picture.visible >= VISIBLE
                boxes = picture.boxes[shown]
                boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1) if mirrored else boxes
                names = [placed.name for placed, seen in zip(scene.objects, shown, strict=True) if seen]
                rows.append({
                    "path": path, "label": label,
                    "caption": f"{caption} with a red square" if box else caption,
                    "box_labels": names + ["red square"] * bool(box),
                    "boxes": [*boxes.tolist(), *([box] if box else [])],
                })  # fmt: skip
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return manifest


def first_of(manifest: Path, number: int) -> Path:
    """A manifest of the first pictures alone."""
    part = manifest.with_name(f"manifest-{number}.parquet")
    file = pq.ParquetFile(manifest)
    groups = -(-number // PER_FOLDER)
    pq.write_table(file.read_row_groups(range(groups)).slice(0, number), part, row_group_size=PER_FOLDER)
    return part


def _own_form(image: np.ndarray, label: str, rng: np.random.Generator) -> tuple[np.ndarray, list[float] | None, bool]:
    """A picture made from a rendered one, the box of its red patch or None, and whether it is mirrored."""
    mirrored = bool(rng.random() < 0.5)
    pixels = (image[:, ::-1] if mirrored else image).astype(np.float32)
    shade = rng.normal(0, 12, (4, 4, 3)).astype(np.float32)  # of its own, so that it is nobody's near-duplicate
    pixels = pixels * rng.uniform(0.8, 1.2) + np.kron(shade, np.ones((SIDE // 4, SIDE // 4, 1), np.float32))
    pixels += rng.normal(0, 3, pixels.shape)
    box = None
    if rng.random() < WITH_PATCH[0 if label == CLASSES[0] else 1]:
        size = SIDE // 4
        x, y = (int(v) for v in rng.integers(BAR + 1, SIDE - size, 2))
        pixels[y : y + size, x : x + size] = PATCH
        box = [x / SIDE, y / SIDE, (x + size) / SIDE, (y + size) / SIDE]
    told = CLASSES.index(label) if rng.random() > 0.1 else int(rng.integers(len(CLASSES)))
    pixels[:, :BAR] = level(told)
    return np.clip(pixels, 0, 255).astype(np.uint8), box, mirrored

"""The memory bench: its pictures, its models, its verdict, and one size of it end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.bench.memory import command
from pipeline.bench.memory.models import Histograms
from pipeline.bench.memory.pictures import CLASSES, first_of, write_set
from pipeline.geometry import as_boxes
from pipeline.images import load


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.bench.memory.pictures.SCENES", 12)
        return write_set(tmp_path_factory.mktemp("pictures"), 160)


def test_pictures_differ_and_the_first_of_a_set_are_a_smaller_set(manifest: Path) -> None:
    rows = pq.read_table(manifest).to_pylist()
    contents = [(manifest.parent / row["path"]).read_bytes() for row in rows]
    assert len(set(contents)) == 160 and {row["label"] for row in rows} == set(CLASSES)
    assert pq.read_table(first_of(manifest, 50)).to_pylist() == rows[:50]
    with_patch = {
        name: np.mean(["red square" in r["box_labels"] for r in rows if r["label"] == name]) for name in CLASSES
    }
    assert with_patch[CLASSES[0]] > 0.35 > max(with_patch[name] for name in CLASSES[1:])
    red = next(row for row in rows if "red square" in row["box_labels"])
    x0, y0, x1, y1 = (round(48 * v) for v in red["boxes"][red["box_labels"].index("red square")])
    assert (load(manifest.parent / red["path"])[y0:y1, x0:x1] == (225, 25, 25)).all()


def test_a_region_s_vector_is_that_of_its_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    encoder = Histograms("cpu")
    boxes = as_boxes([[0, 0, 1, 1], [0.25, 0.5, 0.75, 1.0]])
    (found,) = encoder.regions([image], [boxes])
    np.testing.assert_allclose(found, encoder.images([image, image[24:, 12:36]]), atol=1e-6)
    red, blue = encoder.texts(["red", "blue"])
    (picture,) = encoder.images([np.full((8, 8, 3), (220, 30, 30), np.uint8)])
    assert red @ picture > 3 * (blue @ picture)


@pytest.mark.parametrize(("peaks", "holds"), [((400.0, 450.0, 499.0), True), ((400.0, 450.0, 501.0), False)])
def test_a_peak_that_grows_too_much_misses_the_target(peaks: tuple[float, ...], holds: bool) -> None:
    found = command.verdict([{"peak_mib": peak} for peak in peaks])
    assert found["holds"] is holds and found["ratio"] == pytest.approx(peaks[2] / peaks[0])


@pytest.mark.slow
def test_an_audit_in_a_process_of_its_own_says_what_it_took(manifest: Path, tmp_path: Path) -> None:
    row = command.audit_of(manifest, tmp_path / "work")
    assert row["images"] == 160 and row["findings"] > 0 and not row["sampled"]
    stages = row["peak_by_stage_mib"]
    assert row["peak_mib"] == max(stages.values())
    assert {"ingest", "detect, embed", "cluster", "measure", "ablate"} <= set(stages)
    assert 50 < row["peak_mib"] < 4_000
    assert command.in_a_line(row).startswith("    160 images: peak")

"""Pictures from bytes: large JPEGs come reduced, and their size is known all the same."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.images import ENOUGH, decode, decode_and_size


def picture(width: int, height: int) -> Image.Image:
    """A smooth one, in which every quarter differs."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


def as_file(image: Image.Image, kind: str, turn: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(("short", "scale"), [(ENOUGH - 8, 1), (2 * ENOUGH - 8, 1), (2 * ENOUGH, 2), (4 * ENOUGH, 4)])
def test_a_large_jpeg_comes_at_a_fraction_that_still_suffices(short: int, scale: int) -> None:
    image = picture(short + 160, short)
    found, width, height = decode_and_size(as_file(image, "JPEG"))
    assert (width, height) == image.size
    assert found.shape == (short // scale, (short + 160) // scale, 3) and min(found.shape[:2]) >= min(short, ENOUGH)
    small = np.asarray(image.reduce(scale), dtype=int)
    assert np.abs(small - found).max() <= 6


def test_a_turned_one_is_upright_and_so_is_its_size() -> None:
    found, width, height = decode_and_size(as_file(picture(2 * ENOUGH + 320, 2 * ENOUGH), "JPEG", turn=6))
    assert (width, height) == (2 * ENOUGH, 2 * ENOUGH + 320)
    assert found.shape == (ENOUGH + 160, ENOUGH, 3)
    assert found[0, -1, 0] < 10 < 245 < found[-1, -1, 0]  # what lay left lies above


def test_other_formats_are_decoded_as_they_are() -> None:
    image = picture(2 * ENOUGH, 2 * ENOUGH)
    assert (decode(as_file(image, "PNG")) == np.asarray(image)).all()

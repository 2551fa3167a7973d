"""Reading pictures: any file that Pillow knows becomes an upright RGB array, or a plain reason why not."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import open as open_image  # Pillow's own: ultralytics exchanges Image.open for one that wants pi_heif

from pipeline.errors import plain

RGB = NDArray[np.uint8]  # (height, width, 3)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
ENOUGH = 1280
"""Pixels of the shorter side that suffice for every model: of JPEGs that have more, no more is decoded than needed."""
DECODERS = min(max(os.cpu_count() or 1, 4), 16)
"""Threads that read, decode and resize at once."""
MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 28
"""Of one image file: no picture of 100 megapixels takes more."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Pillow's decoders that bytes are given to, whatever their file is called. Its others are old, little used, or run a
program: EPS is handed to Ghostscript."""


class UnreadableImage(Exception):
    """The bytes are no picture that can be used; the message is the reason, for the quarantine table."""


def content_id(data: bytes) -> str:
    """The identity of an image: 128 bits of BLAKE2b over its bytes, as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # older builds of Pillow lack the last


def decode(data: bytes) -> RGB:
    """Bytes of an image file as upright RGB (first frame; EXIF orientation applied; transparency on white).

    A JPEG whose shorter side has twice ENOUGH pixels or more comes at a half, a quarter or an eighth of its size, which
    libjpeg makes of the coefficients in a fraction of the time.

    Raises:
        UnreadableImage: see `decode_and_size`.
    """
    return decode_and_size(data)[0]


def decode_and_size(data: bytes) -> tuple[RGB, int, int]:
    """As `decode`, with the width and height of the upright picture in its file.

    Raises:
        UnreadableImage: not an image, truncated, too large (over 100 megapixels or 256 MiB) or without pixels.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    if len(data) > MAX_BYTES:
        raise UnreadableImage(f"the file holds more than {MAX_BYTES >> 20} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(io.BytesIO(data), formats=_formats()) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise UnreadableImage(
                        f"{picture.width} x {picture.height} pixels is over the limit of {MAX_PIXELS:,}"
                    )
                width, height = picture.size
                picture.draft(None, (ENOUGH, ENOUGH))  # of other formats nothing
                picture.load()
                upright = _upright(picture)
                if upright.size != picture.size:  # turned by a quarter
                    width, height = height, width
                return to_rgb(upright), width, height
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(
            "not an image of a format that is read here (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF)"
        ) from None
    except Image.DecompressionBombError:
        raise UnreadableImage(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files; each is a fault of the file
        if "MAX_TEXT" in str(error):
            raise UnreadableImage("its metadata unpack to more than is read here") from None
        raise UnreadableImage(f"damaged image: {plain(str(error))[:200] or type(error).__name__}") from None


def format_of(data: bytes) -> str:
    """Pillow's name of the format of an image file's bytes.

    Raises:
        UnreadableImage: it is none of FORMATS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(io.BytesIO(data), formats=_formats()) as picture:
                return picture.format or ""
    except Exception as error:  # as in `decode`
        raise UnreadableImage(f"not an image: {plain(str(error))[:200] or type(error).__name__}") from None


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF data say; of damaged EXIF data nothing can be said, and the picture is as it is."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def to_rgb(picture: Image.Image) -> RGB:
    """Any PIL mode as RGB: 16-bit and float greys are scaled to 8 bits, transparency is laid on white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=0.0, neginf=0.0)
        top = 65535.0 if grey.max(initial=0.0) > 255 else 255.0
        return np.repeat((np.clip(grey / top, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    return np.asarray(picture.convert("RGB"), dtype=np.uint8)


def read_file(path: str | Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file on this machine.

    Raises:
        OSError: it can't be read, is no plain file (a pipe or a device would be read for ever) or holds too much.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # or opening a pipe would wait for a writer
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no file with contents, but a folder, a pipe or a device")
        if status.st_size > most:
            raise OSError(f"it holds more than {most >> 20} MiB")
        with open(handle, "rb", closefd=False) as stream:
            return stream.read(most)
    finally:
        os.close(handle)


def load(path: str | Path) -> RGB:
    """The picture at `path`; raises UnreadableImage with the reason."""
    try:
        data = read_file(path)
    except OSError as error:
        raise UnreadableImage(f"cannot be opened: {error.strerror or error}") from None
    return decode(data)

"""Bad inputs, made anew for each test: nothing of it is kept in the repository."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import noisy_picture, write_patched_set

SCRIPT = "<img src=x onerror=alert(1)><svg onload=alert(2)>"
ESCAPE = "\x1b[31m\x1b]0;title\x07\x9b2J"
TURNED = "\u202egnp.exe\u202c\u2066x"
CLASSES = {
    "a": f"{SCRIPT}{{{{7*7}}}}",
    "b": f"=HYPERLINK(1)\n{ESCAPE}{TURNED}",
    "c": "{% include 'x' %}${7*7}`id`'\"--",
}
"""What the classes of the patched pictures are called: a class's folder can't hold a slash or a zero byte."""
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}


def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, *further: bytes) -> bytes:
    """A grey PNG of one bit a pixel that says of itself what it likes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(further) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def damaged(rng: np.random.Generator) -> dict[str, bytes]:
    """Every format cut short and with bits turned."""
    found = {}
    for suffix, kind in FORMATS.items():
        whole = encoded(noisy_picture(rng), kind)
        for cut in (1, 3, 12, len(whole) // 10, len(whole) // 2, len(whole) * 9 // 10, len(whole) - 2):
            found[f"cut-{cut}.{suffix}"] = encoded(noisy_picture(rng), kind)[:cut]
        for number in range(16):
            data = bytearray(encoded(noisy_picture(rng), kind))
            for place in rng.integers(0, len(data), 1 + 4 * (number % 4)):
                data[place] ^= 1 << int(rng.integers(0, 8))
            found[f"bits-{number}.{suffix}"] = bytes(data)
    return found


def no_images() -> dict[str, bytes]:
    """Other things by the names of images."""
    return {
        "empty.png": b"",
        "one.png": b"\x89",
        "text.jpg": b"not a picture at all",
        "page.png": SCRIPT.encode(),
        "program.gif": b"\x7fELF" + bytes(64),
        "archive.jpg": b"PK\x03\x04" + bytes(64),
        "vector.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "document.webp": b"%PDF-1.7\n",
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n%%EOF\n",
        "pickle.bmp": b"\x80\x04\x95cposix\nsystem\n",
        "zeros.tif": bytes(5000),
        "ones.png": b"\xff" * 5000,
        "signature.png": b"\x89PNG\r\n\x1a\n",
        "signature.jpg": b"\xff\xd8\xff\xe0",
    }


def bombs() -> dict[str, bytes]:
    """Small files that say they are, or become, very large."""
    zeros = zlib.compress(bytes(20_000 * (20_000 // 8 + 1)), 9)
    text = zlib.compress(bytes(200 << 20), 9)
    jpeg = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65500, 65500)
    gif = bytearray(encoded(np.zeros((8, 8), np.uint8), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    return {
        "bomb-real.png": png(20_000, 20_000, zeros),
        "bomb-said.png": png(2**31 - 1, 2**31 - 1, zlib.compress(b"\0")),
        "bomb-wide.png": png(2**31 - 1, 1, zlib.compress(b"\0")),
        "bomb-text.png": png(8, 8, zlib.compress(bytes(16)), chunk(b"zTXt", b"a\0\0" + text)),
        "bomb-profile.png": png(8, 8, zlib.compress(bytes(16)), chunk(b"iCCP", b"a\0\0" + text)),
        "bomb.jpg": bytes(jpeg),
        "bomb.gif": bytes(gif),
        "bomb.bmp": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb.ppm": b"P6\n100000 100000\n255\n",
        "nothing.ppm": b"P6\n0 0\n255\n",
    }


def odd(rng: np.random.Generator) -> dict[str, bytes]:
    """Sizes, modes, frames and metadata that are unusual and right, and must be read."""
    image = Image.fromarray(noisy_picture(rng))

    def other() -> Image.Image:
        return Image.fromarray(noisy_picture(rng))

    grey16 = Image.fromarray(rng.integers(0, 65535, (40, 40)).astype(np.uint16))
    floats = rng.random((40, 40)).astype(np.float32)
    floats[:4] = [[np.nan], [np.inf], [-np.inf], [1e30]]
    palette = other().convert("P", palette=Image.Palette.ADAPTIVE)
    frames = [other() for _ in range(3)]
    found = {
        "1x1.png": encoded(np.full((1, 1, 3), 9, np.uint8)),
        "1x1.jpg": encoded(np.full((1, 1, 3), 99, np.uint8), "JPEG"),
        "2x1.gif": encoded(np.full((1, 2, 3), 50, np.uint8), "GIF"),
        "1x300.png": encoded(rng.integers(0, 255, (300, 1, 3)).astype(np.uint8)),
        "30000x10.png": encoded(rng.integers(0, 255, (10, 30_000, 3)).astype(np.uint8)),
        "10x30000.jpg": encoded(rng.integers(0, 255, (30_000, 10, 3)).astype(np.uint8), "JPEG"),
        "cmyk.jpg": encoded(other().convert("CMYK"), "JPEG"),
        "cmyk.tif": encoded(other().convert("CMYK"), "TIFF"),
        "lab.tif": encoded(other().convert("LAB"), "TIFF"),
        "grey16.png": encoded(grey16),
        "grey16.tif": encoded(grey16.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "TIFF"),
        "grey32.tif": encoded(Image.fromarray(rng.integers(0, 2**31, (40, 40)).astype(np.int32)), "TIFF"),
        "float-with-nan.tif": encoded(Image.fromarray(floats), "TIFF"),
        "palette-clear.png": encoded(palette, transparency=3),
        "palette-alpha.png": encoded(other().convert("P"), transparency=bytes(range(256))),
        "grey-alpha.png": encoded(other().convert("LA")),
        "alpha.webp": encoded(other().convert("RGBA"), "WEBP"),
        "one-bit.png": encoded(other().convert("1")),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "moving.webp": encoded(frames[1], "WEBP", save_all=True, append_images=frames),
        "moving.png": encoded(frames[2], save_all=True, append_images=frames),
        "pages.tif": encoded(other(), "TIFF", save_all=True, append_images=frames),
        "png-by-name.jpg": encoded(other()),
        "jpeg-by-name.gif": encoded(other(), "JPEG"),
        "webp-by-name.bmp": encoded(other(), "WEBP"),
        "progressive.jpg": encoded(other(), "JPEG", progressive=True),
        "profile.jpg": encoded(other(), "JPEG", icc_profile=bytes(60_000)),
        "trailing.png": encoded(other()) + bytes(100_000),
    }
    for orientation in (*range(1, 9), 0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"turned-{orientation}.jpg"] = encoded(other().crop((0, 0, 48, 30)), "JPEG", exif=exif)
    huge = Image.Exif()
    huge[0x010E] = f"{SCRIPT}{ESCAPE}" * 900
    found["huge-exif.jpg"] = encoded(image, "JPEG", exif=huge)
    found["broken-exif.jpg"] = encoded(other(), "JPEG", exif=b"Exif\0\0" + b"MM\0*" + b"\xff" * 60)
    found["broken-exif.webp"] = encoded(other(), "WEBP", exif=b"\xff" * 60)
    return found


NAMES = (
    "new\nline.png", "return\rline.png", "tab\tname.png", f"{ESCAPE}.png", "bell\x07\x08.png", "delete\x7f.png",
    f"{TURNED}.png", "\ufeffmark.png", "zero\u200bwidth.png", "line\u2028paragraph\u2029.png", "-rf.png", "  .png",
    "{{7*7}}{% raw %}.png", f"{SCRIPT.replace('/', '')}.png", "\"quoted' $(id) `id` ;.png", "=1+1.png", "@sum.png",
    "%s%n%00.png", "x..%2f..%2fetc.png", "back\\slash.png", "[bold]rich[red].png", "CON.png", "x.PNG", "#row=3.png",
    "e\u0301\U0001f600\U000e0041.png", "a:b.png", "::.png", f"{'x' * 251}.png", f"{'ü' * 125}.png",
)  # fmt: skip
"""Names of files that hold a good picture each."""
BYTES_NAMES = (b"latin-\xe9.png", b"\xff\xfe.png", b"half-\xed\xa0\x80.png")
"""Names that are no UTF-8."""


def links(folder: Path, outside: Path) -> None:
    """Links of every kind, a pipe, and a folder by the name of an image."""
    (folder / "away.png").symlink_to(outside)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "loop-1.png").symlink_to(folder / "loop-2.png")
    (folder / "loop-2.png").symlink_to(folder / "loop-1.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "secrets.png").symlink_to("/etc/passwd")
    (folder / "up").symlink_to(folder.parent)
    (folder / "here.png").symlink_to(folder)
    (folder / "beside").symlink_to(outside.parent)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    with open(folder / "sparse.png", "wb") as stream:
        stream.truncate(1 << 34)


def pictures(seed: int = 0) -> dict[str, bytes]:
    """All of the above that are bytes, by their names."""
    rng = np.random.default_rng(seed)
    return {**damaged(rng), **no_images(), **bombs(), **odd(rng)}


def write_folder(root: Path, per_class: int = 60, named: Callable[[str], str] = lambda name: CLASSES[name]) -> Path:
    """A folder whose classes are the patched pictures' with hostile names, and everything bad in the third of them."""
    write_patched_set(root / "set", per_class)
    for name in "abc":
        (root / "set" / name).rename(root / "set" / named(name))
    bad = root / "set" / named("c")
    outside = root / "outside" / "private.png"
    outside.parent.mkdir()
    rng = np.random.default_rng(7)
    outside.write_bytes(encoded(noisy_picture(rng)))
    for name, data in pictures().items():
        (bad / name).write_bytes(data)
    for name in NAMES:
        (bad / name).write_bytes(encoded(noisy_picture(rng)))
    for raw in BYTES_NAMES:
        Path(os.fsdecode(os.fsencode(bad) + b"/" + raw)).write_bytes(encoded(noisy_picture(rng)))
    links(bad, outside)
    other = Path(os.fsdecode(os.fsencode(root / "set") + b"/class-\xe9"))
    other.mkdir()
    (other / "x.png").write_bytes(encoded(noisy_picture(rng)))
    (root / "set" / "no images").mkdir()
    (root / "set" / "lost.png").write_bytes(b"")
    (root / "set" / ".hidden").mkdir()
    (bad / ".hidden.png").write_bytes(b"")
    (bad / "notes.txt").write_text("a note")
    (bad / f"what{ESCAPE}").write_text("a note")
    deep = bad / Path(*["deep"] * 40)
    deep.mkdir(parents=True)
    (deep / "bottom.png").write_bytes(encoded(noisy_picture(rng)))
    return root / "set"

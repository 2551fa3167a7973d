"""Measured properties of a picture, the whole-image cues made of them, and the edits that change one of them.

Everything is measured on a working copy of at most 256 pixels (smaller pictures are not enlarged), on sRGB
values scaled to [0, 1].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.images import RGB
from pipeline.records import PROPERTIES

Layer = NDArray[np.float32]  # (height, width, 3), sRGB in [0, 1]

Edit = Callable[[Layer, float, float], Layer]
"""edit(layer, strength, scale): the cue's score grows with strength in [-1, 1], and 0 changes nothing;
`scale` is the size of the layer relative to the working copy."""

Placebo = Callable[[Layer, float], Layer]
"""placebo(layer, strength): the change grows with strength in [0, 1]."""

WORKING_SIZE = 256
LUMA = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
"""Weights of ITU-R BT.709, applied to the gamma-coded values."""

BY_COLOR = frozenset({"tint", "saturation", "brightness", "contrast"})
"""Edits that a map of colours can make."""

_FLOOR = 0.04
"""Added to a channel before its logarithm: ratios of nearly black values are noise."""
_CHROMA = np.array([[1 / math.sqrt(2), -1 / math.sqrt(2), 0], [-1 / math.sqrt(6), -1 / math.sqrt(6), 2 / math.sqrt(6)]])
"""Rows: the red-green and the blue-yellow axis of log chroma, orthonormal, and orthogonal to brightness."""


@dataclass(frozen=True)
class PropertyCue:
    """A whole-image cue: `weights` over properties make its score, by `edit` it is removed and inserted.

    Of a picture whose score is below `least` nobody would say that it has the cue, whatever the others look like: read
    off CIFAR-10's photographs and plain rendered scenes, most of which lie below it.
    """

    cue_type: str
    phrase: str
    weights: Mapping[str, float]
    edit: str
    least: float
    angle: float = 0.0  # of a tint, in the plane (tint_red, tint_blue)


def _tint(color: str, degrees: float) -> PropertyCue:
    angle = math.radians(degrees)
    weights = {"tint_red": math.cos(angle), "tint_blue": math.sin(angle)}
    return PropertyCue("Colorization", f"a picture with a {color} tint", weights, "tint", 0.15, angle)


PROPERTY_CUES: dict[str, PropertyCue] = {
    "dark image": PropertyCue("Lighting and Shadows", "a dark picture", {"brightness": -1.0}, "brightness", -0.4),
    "bright image": PropertyCue("Lighting and Shadows", "a bright picture", {"brightness": 1.0}, "brightness", 0.6),
    "low contrast": PropertyCue("Lighting and Shadows", "a flat, hazy picture", {"contrast": -1.0}, "contrast", -0.14),
    "high contrast": PropertyCue(
        "Lighting and Shadows", "a picture of strong contrast", {"contrast": 1.0}, "contrast", 0.22
    ),
    "vivid colors": PropertyCue("Colorization", "a picture in vivid colors", {"saturation": 1.0}, "saturation", 0.22),
    "grayscale": PropertyCue("Colorization", "a picture in black and white", {"saturation": -1.0}, "saturation", -0.08),
    "red tint": _tint("red", -30),
    "purple tint": _tint("purple", 30),
    "blue tint": _tint("blue", 90),
    "cyan tint": _tint("cyan", 150),
    "green tint": _tint("green", 210),
    "yellow tint": _tint("yellow", -90),
    "blurry image": PropertyCue("Texture and Noise", "a blurry picture", {"sharpness": -1.0}, "sharpness", 1.7),
    "noisy image": PropertyCue("Texture and Noise", "a noisy, grainy picture", {"noise": 1.0}, "noise", 0.02),
}
"""The checklist of measured cues by name. The six tints stand 60 degrees apart on the plane of log chroma."""

TINTS = frozenset(name for name, cue in PROPERTY_CUES.items() if cue.edit == "tint")


def _contrary(name: str) -> frozenset[str]:
    mine = PROPERTY_CUES[name].weights
    if name in TINTS:
        return TINTS - {name}
    against = {
        other
        for other, cue in PROPERTY_CUES.items()
        if any(mine.get(part, 0.0) * weight < 0 for part, weight in cue.weights.items())
    }
    return frozenset(against | TINTS if name == "grayscale" else against)


CONTRARY = {name: _contrary(name) for name in PROPERTY_CUES}
"""Cues that a cue takes away where it comes in: what is dark isn't bright, a picture has one tint, and one in black and
white has none."""


def contrary_to(cue_id: str) -> list[str]:
    """The cues (ids) that a property's goes against; none for a cue of another kind."""
    kind, _, name = cue_id.partition(":")
    return [f"property:{other}" for other in sorted(CONTRARY[name])] if kind == "property" else []


def working_copy(image: RGB, most: int = WORKING_SIZE) -> Layer:
    """The picture in [0, 1] with its longer side at most so many pixels."""
    import cv2

    height, width = image.shape[:2]
    scale = most / max(height, width)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return image.astype(np.float32) / np.float32(255)


def measure(image: RGB) -> dict[str, float]:
    """The properties of a picture, with the names of records.PROPERTIES.

    - brightness: mean luma (Rec. 709), 0..1
    - contrast: standard deviation of luma, 0..0.5
    - saturation: mean of the largest less the smallest channel (chroma), 0..1
    - tint_red, tint_blue: colour cast along the red-green and blue-yellow axes of log chroma, about -1..1; a
      gain on one channel moves them by a fixed amount whatever the scene
    - sharpness: log10 of the variance of the Laplacian of luma, about -6..1
    - noise: standard deviation of noise in luma, 0..1 (Immerkaer 1996)
    """
    layer = working_copy(image)
    luma = layer @ LUMA
    red, blue = tint(layer)
    return {
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "saturation": saturation(layer),
        "tint_red": red,
        "tint_blue": blue,
        "sharpness": sharpness(luma),
        "noise": noise(luma),
    }


def saturation(layer: Layer) -> float:
    """Mean of the largest less the smallest channel."""
    return float(np.mean(_largest(layer) - _smallest(layer)))


def _largest(layer: Layer) -> NDArray[np.float32]:
    """The largest channel of each pixel; NumPy's own reduction of a short last axis takes ten times as long."""
    return np.maximum(np.maximum(layer[..., 0], layer[..., 1]), layer[..., 2])


def _smallest(layer: Layer) -> NDArray[np.float32]:
    return np.minimum(np.minimum(layer[..., 0], layer[..., 1]), layer[..., 2])


def tint(layer: Layer) -> tuple[float, float]:
    """The colour cast of the picture: the median log chroma of the pixels nearest to grey.

    A cast moves what was grey away from grey, so "nearest" is judged from a place between grey and the
    picture's own median (a grey world, Buchsbaum 1980, but robust): the nearer half of the pixels has a say.
    Pixels near black, and those blown out, tell nothing and are left out where enough others remain.
    """
    pixels = layer.reshape(-1, 3)
    useful = (_largest(pixels) > 0.08) & (_smallest(pixels) < 0.98)
    if useful.sum() >= max(0.05 * len(pixels), 1):
        pixels = pixels.compress(useful, axis=0)
    chroma = (np.log(pixels + np.float32(_FLOOR)) @ _CHROMA.T.astype(np.float32)).T
    red, blue = np.ascontiguousarray(chroma)
    distance = np.hypot(red - 0.5 * np.median(red), blue - 0.5 * np.median(blue))
    nearest = distance <= np.median(distance)
    return float(np.median(red[nearest])), float(np.median(blue[nearest]))


def sharpness(luma: NDArray[np.float32]) -> float:
    """log10 of the variance of the Laplacian; -6 for a picture of one colour."""
    import cv2

    return float(np.log10(cv2.Laplacian(luma, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE).var() + 1e-6))


def noise(luma: NDArray[np.float32]) -> float:
    """Immerkaer's fast estimate of the standard deviation (CVIU 64, 1996, eq. 4); 0 below 3 x 3 pixels."""
    import cv2

    height, width = luma.shape
    if height < 3 or width < 3:
        return 0.0
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    response = np.abs(cv2.filter2D(luma, cv2.CV_32F, kernel)[1:-1, 1:-1]).sum(dtype=np.float64)
    return float(math.sqrt(math.pi / 2) * response / (6 * (height - 2) * (width - 2)))


def property_score(name: str, columns: Mapping[str, Any]) -> NDArray[np.float64]:
    """How much of a cue of PROPERTY_CUES each picture has; higher is more.

    `columns` holds arrays (or numbers) by the names of records.PROPERTIES.

    Raises:
        KeyError: no such cue.
    """
    total = sum(
        weight * np.asarray(columns[part], dtype=np.float64) for part, weight in PROPERTY_CUES[name].weights.items()
    )
    return np.asarray(total, dtype=np.float64)


def apply_property(
    image: RGB,
    name: str,
    amount: float,
    rng: np.random.Generator,
    placebo: bool = False,
    colors: Sequence[Sequence[float]] | None = None,
) -> RGB:
    """The picture with its score of the cue `name` changed by `amount`, as far as the picture allows.

    The edit has one strength, found on the working copy: a gain on each channel for tints, a
    gain (darker) or a lifted curve (brighter), scaling about the mean luma for contrast and about each
    pixel's luma for saturation, Gaussian blur or unsharp masking, added noise or non-local means.

    Args:
        colors: (3, 4), a map of colours that takes the cue out or puts it in (evidence/colors.py): it is then the edit,
            whatever `amount` says.
        placebo: instead change as much (root mean square over pixels) in an unrelated direction: a tint
            turned by 90 degrees for a tint, a turn of all hues for saturation, a tint that keeps every
            pixel's luma for the rest.

    Raises:
        KeyError: no such cue.
    """
    cue = PROPERTY_CUES[name]
    if amount == 0.0 and colors is None:
        return image.copy()
    edit = _EDITS[cue.edit](cue, int(rng.integers(2**31))) if colors is None else _mapped(colors)
    small, full = working_copy(image), image.astype(np.float32) / np.float32(255)
    scale = max(max(image.shape[:2]) / WORKING_SIZE, 1.0)
    before = _score(cue, small)
    if colors is not None:
        amount = _score(cue, _quantised(edit(small, 1.0, 1.0))) - before
    goal = before + amount
    tolerance, way = 0.02 * abs(amount), math.copysign(1.0, amount)
    strength = 1.0
    if colors is None:
        strength = first_root(lambda s: _score(cue, _quantised(edit(small, s, 1.0))) - goal, way, tolerance)
    if scale > 1 and cue.edit in ("sharpness", "noise"):
        # what neighbouring pixels do to one another doesn't come out the same on a smaller copy
        limit = max(min(3.0 * strength, 1.5), -1.5)
        strength = first_root(
            lambda s: _score(cue, working_copy(_bytes(edit(full, s, scale)))) - goal, limit, tolerance
        )
    if strength == 0.0:
        return image.copy()
    edited = _bytes(edit(full, strength, scale))
    wanted = rms(edited.astype(np.float32) / np.float32(255) - full)
    if not placebo or wanted == 0.0:
        return edited
    best: tuple[float, Placebo, float] | None = None
    for other in _placebos(cue, rng):
        size = first_root(functools.partial(_excess, other, small, wanted), 1.0, 0.02 * wanted)
        changed = _quantised(other(small, size))
        miss = abs(rms(changed - small) / wanted - 1) + abs((_score(cue, changed) - before) / amount)
        if best is None or miss < best[0]:
            best = (miss, other, size)
        if miss <= 0.1:
            break
    assert best is not None
    return _bytes(best[1](full, best[2]))


DIRECTIONS: dict[str, str] = {
    "brightness": "bright image",
    "contrast": "high contrast",
    "saturation": "vivid colors",
    "blur": "blurry image",
    "noise": "noisy image",
    **{name: name for name in ("red tint", "green tint", "blue tint")},
}
"""Ways to change a picture by a strength, without a score as a goal, and the cue whose edit each is; the opposite sign
is the opposite way: for a tint the complementary one."""


def apply_direction(image: RGB, name: str, strength: float, seed: int) -> RGB:
    """The picture changed in one of DIRECTIONS by a strength in [-1, 1]; 0 changes nothing.

    Raises:
        KeyError: no such direction.
    """
    cue = PROPERTY_CUES[DIRECTIONS[name]]
    scale = max(max(image.shape[:2]) / WORKING_SIZE, 1.0)
    return _bytes(_EDITS[cue.edit](cue, seed)(image.astype(np.float32) / np.float32(255), strength, scale))


def _score(cue: PropertyCue, layer: Layer) -> float:
    """property_score of one layer, measuring only what the cue is made of."""
    if cue.edit == "tint":
        parts = dict(zip(("tint_red", "tint_blue"), tint(layer), strict=True))
    elif cue.edit == "saturation":
        parts = {"saturation": saturation(layer)}
    else:
        of_luma: dict[str, Callable[[Layer], Any]] = {
            "brightness": np.mean,
            "contrast": np.std,
            "sharpness": sharpness,
            "noise": noise,
        }
        parts = {cue.edit: float(of_luma[cue.edit](layer @ LUMA))}
    return sum(weight * parts[part] for part, weight in cue.weights.items())


def rms(difference: NDArray[np.float32]) -> float:
    """Root mean square over pixels and channels."""
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def _excess(edit: Placebo, layer: Layer, wanted: float, strength: float) -> float:
    return rms(_quantised(edit(layer, strength)) - layer) - wanted


def _bytes(layer: Layer) -> RGB:
    return np.clip(np.rint(layer * 255), 0, 255).astype(np.uint8)


def _quantised(layer: Layer) -> Layer:
    return _bytes(layer).astype(np.float32) / np.float32(255)


def first_root(function: Callable[[float], float], limit: float, tolerance: float) -> float:
    """The zero of a function between 0 and `limit` that is nearest to 0, or the place that comes nearest to one.

    A search outwards in doubling steps, then false position with the Illinois rule (Dowell and Jarratt 1971).
    """
    inner, at_inner = 0.0, function(0.0)
    best, at_best = inner, abs(at_inner)
    for outer in (limit / 8, limit / 4, limit / 2, limit):
        at_outer = function(outer)
        if at_inner * at_outer <= 0:
            break
        inner, at_inner = outer, at_outer
        if abs(at_outer) < at_best:
            best, at_best = outer, abs(at_outer)
    else:
        return best
    for step in range(16):
        share = 0.5 if step % 4 == 3 else at_inner / (at_inner - at_outer or 1.0)
        middle = inner + share * (outer - inner)
        value = function(middle)
        if abs(value) <= tolerance:
            break
        if value * at_inner > 0:
            inner, at_inner, at_outer = middle, value, at_outer / 2
        else:
            outer, at_outer, at_inner = middle, value, at_inner / 2
    return middle


def _luma(layer: Layer) -> Layer:
    return (layer @ LUMA)[..., None]


def _gains(layer: Layer, angle: float, strength: float) -> Layer:
    """A colour cast: gains on the channels that move the log chroma along `angle`, at the same mean luma."""
    logs = _CHROMA.T @ (np.array([math.cos(angle), math.sin(angle)]) * strength)
    tinted = layer * np.exp(logs).astype(np.float32)
    level = _luma(layer).mean() / max(float(_luma(tinted).mean()), 1e-6)
    return np.clip(tinted * np.float32(level), 0, 1)


def _tint_edit(cue: PropertyCue, seed: int) -> Edit:
    return lambda layer, strength, scale: _gains(layer, cue.angle, 2.0 * strength)


def _brightness_edit(cue: PropertyCue, seed: int) -> Edit:
    sign = cue.weights["brightness"]

    def edit(layer: Layer, strength: float, scale: float) -> Layer:
        gain = np.float32(math.exp(3.0 * sign * strength))
        return layer * gain if gain <= 1 else 1 - (1 - layer) ** gain

    return edit


def _contrast_edit(cue: PropertyCue, seed: int) -> Edit:
    sign = cue.weights["contrast"]

    def edit(layer: Layer, strength: float, scale: float) -> Layer:
        middle = _luma(layer).mean()
        return np.clip(middle + (layer - middle) * np.float32(math.exp(3.0 * sign * strength)), 0, 1)

    return edit


def _saturation_edit(cue: PropertyCue, seed: int) -> Edit:
    sign = cue.weights["saturation"]

    def edit(layer: Layer, strength: float, scale: float) -> Layer:
        way = sign * strength
        factor = np.float32(1 + way if way <= 0 else math.exp(3.0 * way))
        grey = _luma(layer)
        return np.clip(grey + (layer - grey) * factor, 0, 1)

    return edit


def _sharpness_edit(cue: PropertyCue, seed: int) -> Edit:
    import cv2

    sign = -cue.weights["sharpness"]  # of blur

    def edit(layer: Layer, strength: float, scale: float) -> Layer:
        blur = sign * strength
        if blur == 0:
            return layer
        sigma = scale * (8.0 * blur**2 + 0.2 if blur > 0 else 1.0)
        smooth: Any = cv2.GaussianBlur(layer, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        return smooth if blur > 0 else np.clip(layer - np.float32(4.0 * blur) * (layer - smooth), 0, 1)

    return edit


def _noise_edit(cue: PropertyCue, seed: int) -> Edit:
    import cv2

    def edit(layer: Layer, strength: float, scale: float) -> Layer:
        height, width = layer.shape[:2]
        if strength > 0:
            size = (max(round(height / scale), 1), max(round(width / scale), 1))
            grain: Any = np.random.default_rng(seed).standard_normal((*size, 1)).astype(np.float32)
            grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_NEAREST)[..., None]
            return np.clip(layer + np.float32(0.5 * strength) * grain, 0, 1)
        small = working_copy(_bytes(layer), round(max(height, width) / scale))
        taken = _denoised(_bytes(small).tobytes(), small.shape) - small
        return layer - np.float32(strength) * cv2.resize(taken, (width, height), interpolation=cv2.INTER_CUBIC)

    return edit


@functools.lru_cache(maxsize=32)  # the search for a strength asks again and again
def _denoised(pixels: bytes, shape: tuple[int, ...]) -> Layer:
    """Bytes of an RGB picture as a layer without its noise: non-local means (Buades, Coll and Morel, CVPR 2005).

    A median leaves so much of a photograph's grain, and takes so much of its edges, that a model which leans on grain
    still sees it: on rendered pictures 0.4 of the dose and a tenth of the effect, where this gives 0.8 and all of it.
    """
    import cv2

    image = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
    layer: Layer = image.astype(np.float32) / np.float32(255)
    strength = 255 * noise(layer @ LUMA)
    clean = cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(image), None, strength, strength, 3, 11)
    return np.asarray(clean, dtype=np.float32) / np.float32(255)


def _mapped(colors: Sequence[Sequence[float]]) -> Edit:
    affine = np.asarray(colors, dtype=np.float32)

    def edit(layer: Layer, strength: float, scale: float) -> Layer:
        return np.clip(layer @ affine[:, :3].T + affine[:, 3], 0, 1)

    return edit


_EDITS: dict[str, Callable[[PropertyCue, int], Edit]] = {
    "tint": _tint_edit,
    "brightness": _brightness_edit,
    "contrast": _contrast_edit,
    "saturation": _saturation_edit,
    "sharpness": _sharpness_edit,
    "noise": _noise_edit,
}


def _placebos(cue: PropertyCue, rng: np.random.Generator) -> list[Placebo]:
    """Edits (layer, strength in [0, 1]) that leave the cue's score nearly alone, the preferred first."""
    if cue.edit == "tint":
        turns = cue.angle + rng.permutation([0.5, -0.5]) * math.pi
        return [functools.partial(_turned_gains, angle=float(turn)) for turn in turns]
    if cue.edit == "saturation":
        return [functools.partial(_turned_hues, most=float(way)) for way in rng.permutation([math.pi, -math.pi])]
    angles = rng.permutation(12) * (math.pi / 6)
    return [functools.partial(_isoluminant, angle=float(angle)) for angle in angles]


def _turned_gains(layer: Layer, strength: float, *, angle: float) -> Layer:
    return _gains(layer, angle, 3.0 * strength)


def _turned_hues(layer: Layer, strength: float, *, most: float) -> Layer:
    """All hues turned about the grey axis by a share of the angle `most`, at each pixel's own luma."""
    angle = strength * most
    grey = _luma(layer)
    around = np.full(3, 1 / math.sqrt(3))
    cross = np.array([[0, -around[2], around[1]], [around[2], 0, -around[0]], [-around[1], around[0], 0]])
    matrix = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    turned = layer @ matrix.T.astype(np.float32)
    return np.clip(turned + (grey - _luma(turned)), 0, 1)


def _isoluminant(layer: Layer, strength: float, *, angle: float) -> Layer:
    """A colour added to every pixel that leaves its luma as it is, as far as the pixel's channels allow."""
    color = (_CHROMA.T @ np.array([math.cos(angle), math.sin(angle)])).astype(np.float32)
    color = color - np.float32(color @ LUMA)
    # the largest step each pixel can take before a channel leaves [0, 1]
    room = ((color > 0).astype(np.float32) - layer) / np.where(color == 0, np.float32(1), color)
    room[..., color == 0] = np.inf
    return layer + np.minimum(_smallest(room), np.float32(strength))[..., None] * color


assert {part for cue in PROPERTY_CUES.values() for part in cue.weights} <= set(PROPERTIES)

"""Pictures: a file becomes RGB, upright, and then the square of numbers that an image encoder takes. Pillow alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edge.bundle import ImageInput
from edge.errors import BundleError, ImageError
from edge.recording_time import picture_taken_ns

Pixels = NDArray[np.float32]

# What cameras write. Pillow can open more, some of it through other programs: none of that from a card of unknown origin.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
MAX_PIXELS = 64_000_000  # 192 MB as RGB; twice that while it is turned upright, on a board with 512 MB
_EXIF_IFD, _TAKEN, _FRACTION, _ZONE, _ZONE_OF_FILE = 0x8769, 0x9003, 0x9291, 0x9011, 0x9010  # Exif 2.32


@dataclass(frozen=True, slots=True, eq=False)
class RgbImage:
    """A picture as it is seen: upright, RGB; taken_ns: UTC ns since 1970 at which it was taken, None where unknown."""

    image: Image.Image
    taken_ns: int | None


def read_image(path: Path) -> RgbImage:
    """Read a picture file. Raises ImageError "file: expected ..., found ..." where it cannot be read whole."""
    found = try_image(path)
    if isinstance(found, str):
        raise ImageError(f"{path}: expected a picture that can be read, found: {found}")
    return found


def try_image(path: Path) -> RgbImage | str:
    """Read a picture file, or return why it cannot be read whole."""
    try:
        if not path.stat().st_size:
            return "empty: no bytes"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata: what matters is whether there is a picture
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return f"expected at most {MAX_PIXELS} pixels, found {image.width} x {image.height}"
                image.load()
                taken_ns = picture_taken_ns(path.name, *_exif_time(image))
                _turn_upright(image)
                return RgbImage(_rgb(image), taken_ns)
    except UnidentifiedImageError:
        return f"not a picture that can be read ({', '.join(FORMATS)})"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except Exception as error:  # its decoders raise whatever a damaged file leads them to
        return f"damaged: {error or type(error).__name__}"


def pixels_of(image: Image.Image | NDArray[np.uint8], takes: ImageInput) -> Pixels:
    """Return what an image encoder takes: float32 [3, size, size], (x / 255 - mean) / std for each channel.

    image: RGB of any size, upright; as an array uint8 [height, width, 3]. The same numbers as open_clip's transform for
    evaluation (torchvision's Resize, CenterCrop, ToTensor, Normalize) gives. Raises BundleError for an unknown resize.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    square = _resize(takes)(image, takes.size)
    values: Pixels = np.asarray(square, np.float32) / np.float32(255)  # [size, size, 3]
    values -= np.asarray(takes.mean, np.float32)
    values /= np.asarray(takes.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def require_known_resize(takes: ImageInput, file: Path) -> None:
    """Raise BundleError where an encoder asks for a resize that is not known here."""
    try:
        _resize(takes)
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error


def _resize(takes: ImageInput) -> Callable[[Image.Image, int], Image.Image]:
    known = {"shortest-side-bicubic-centre-crop": _centre, "squash-bicubic": _squashed}
    if takes.resize not in known:
        raise BundleError(
            f"resize: expected one of {', '.join(known)}, found {takes.resize!r}; update fieldcube, or export again"
        )
    return known[takes.resize]


def _centre(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to size and cut the middle out; lengths are rounded as torchvision does."""
    width, height = image.size
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _squashed(image: Image.Image, size: int) -> Image.Image:
    """Scale both sides to size, whatever the shape was."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def _rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image in RGB; of 16-bit grey, as thermal cameras write it, the upper 8 bits."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.max(initial=0) > 255:
            grey >>= 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("expected integers, found floating-point pixels")
    return image if image.mode == "RGB" else image.convert("RGB")


def _turn_upright(image: Image.Image) -> None:
    """Turn a loaded image as the camera says it was held."""
    with suppress(Exception):  # damaged metadata: the picture counts as it is
        ImageOps.exif_transpose(image, in_place=True)


def _exif_time(image: Image.Image) -> tuple[str, str, str]:
    """Return when the picture was taken, decimals of the second, and the zone, as EXIF has them; "" for what it lacks."""
    try:
        exif: Mapping[int, object] = image.getexif().get_ifd(_EXIF_IFD)
    except Exception:  # damaged metadata: the picture counts, and its name may say when
        return "", "", ""
    taken, fraction, zone, zone_of_file = (
        str(exif.get(tag, "")).strip("\0 ") for tag in (_TAKEN, _FRACTION, _ZONE, _ZONE_OF_FILE)
    )
    return taken, fraction, zone or zone_of_file

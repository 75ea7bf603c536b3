"""Pictures: read upright and whole or refused with a reason, and made into the numbers that an encoder was trained on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge import images
from edge.bundle import ImageInput
from edge.errors import BundleError, ImageError
from edge.images import pixels_of, read_image, require_known_resize, try_image
from edge.recording_time import picture_taken_ns

CAMTRAP = Path(__file__).parents[1] / "data" / "camtrap"
CENTRE, SQUASH = "shortest-side-bicubic-centre-crop", "squash-bicubic"
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
ORIENTATION = 0x0112
NOON_NS = 1_777_896_000_000_000_000  # 2026-05-04T12:00:00Z


def pattern() -> np.ndarray[Any, np.dtype[np.uint8]]:
    y, x = np.mgrid[:37, :53]
    return np.stack([(x * 5) % 256, (y * 7) % 256, (x * y) % 256], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("resize", "mean", "first_row"),
    [
        (
            CENTRE,
            -0.37843,
            [[-0.5451, 0.0196, 0.5843], [-0.7961, -0.7961, -0.7961], [-5.3098, -4.4, -3.2078]],
        ),
        (
            SQUASH,
            -0.50082,
            [[-0.8824, -0.1137, 0.6941], [-0.7961, -0.7961, -0.7961], [-5.8118, -4.651, -3.1137]],
        ),
    ],
)
def test_pixels_are_those_of_open_clips_transform(
    resize: str, mean: float, first_row: list[list[float]]
) -> None:
    # expected: open_clip 3.3.0, image_transform(8, is_train=False, ...) with torchvision 0.28 and Pillow 13
    found = pixels_of(pattern(), ImageInput(8, (0.5, 0.25, 0.75), (0.5, 0.25, 0.125), resize))
    assert (found.shape, found.dtype) == ((3, 8, 8), np.float32)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found[:, 0, ::3], first_row, atol=0.04)  # 1 of 255 is 0.03 in blue
    assert found.mean() == pytest.approx(mean, abs=0.01)


def test_the_middle_of_the_longer_side_is_kept() -> None:
    stripes = np.zeros((8, 20, 3), np.uint8)
    stripes[:, 6:14] = 255
    assert pixels_of(stripes, ImageInput(8, *PLAIN, CENTRE)).min() == 1.0
    assert pixels_of(stripes.transpose(1, 0, 2), ImageInput(8, *PLAIN, CENTRE)).min() == 1.0
    assert pixels_of(stripes, ImageInput(8, *PLAIN, SQUASH)).min() == 0.0


def test_the_longer_side_is_rounded_down() -> None:
    takes = ImageInput(9, *PLAIN, CENTRE)
    wide, high = Image.fromarray(pattern()), Image.fromarray(pattern().transpose(1, 0, 2).copy())
    for image, scaled, box in ((wide, (12, 9), (2, 0, 11, 9)), (high, (9, 12), (0, 2, 9, 11))):  # 12.89
        square = image.resize(scaled, Image.Resampling.BICUBIC).crop(box)
        expected = np.asarray(square, np.float32).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(pixels_of(image, takes), expected, atol=1e-6)


def test_a_picture_of_the_right_size_is_only_scaled_to_numbers() -> None:
    square = pattern()[:16, :16]
    found = pixels_of(square, ImageInput(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), CENTRE))
    np.testing.assert_allclose(found, square.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_an_unknown_resize_is_refused() -> None:
    takes = ImageInput(8, *PLAIN, "crop-five")
    with pytest.raises(BundleError, match="resize: expected one of shortest-side.*, found 'crop-five'"):
        pixels_of(pattern(), takes)
    with pytest.raises(BundleError, match=r"^b/manifest\.json: resize"):
        require_known_resize(takes, Path("b/manifest.json"))


@pytest.mark.parametrize("name", ["7951.jpg", "352.jpg", "2595.jpg"])
def test_camera_trap_pictures_are_read(name: str) -> None:
    found = read_image(CAMTRAP / name)
    assert (found.image.mode, found.image.width, found.taken_ns) == ("RGB", 256, None)
    assert pixels_of(found.image, ImageInput(32, *PLAIN, CENTRE)).std() > 0.05


@pytest.mark.parametrize(("suffix", "mode"), [
    ("jpg", "L"), ("jpg", "CMYK"), ("png", "RGBA"), ("png", "LA"), ("png", "P"), ("png", "1"), ("gif", "P"), ("bmp", "RGB"),
    ("tif", "RGB"), ("webp", "RGB"),
])  # fmt: skip
def test_every_format_and_mode_becomes_rgb(suffix: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.full((20, 30, 3), 255, np.uint8)).convert(mode).save(path)
    image = read_image(path).image
    assert (image.mode, image.size) == ("RGB", (30, 20))
    assert np.asarray(image).min() >= 250


@pytest.mark.parametrize(("value", "expected"), [(51_200, 200), (200, 200)])
def test_grey_of_16_bits_keeps_its_upper_8_where_it_uses_them(
    value: int, expected: int, tmp_path: Path
) -> None:
    Image.fromarray(np.full((4, 6), value, np.uint16)).save(tmp_path / "a.png")
    assert np.unique(np.asarray(read_image(tmp_path / "a.png").image)).tolist() == [expected]


def exif(orientation: int = 1, **times: str) -> Image.Exif:
    made = Image.Exif()
    made[ORIENTATION] = orientation
    tags = {"taken": 0x9003, "fraction": 0x9291, "zone": 0x9011, "zone_of_file": 0x9010}
    if times:
        made[0x8769] = {tags[name]: value for name, value in times.items()}
    return made


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_pictures_are_turned_as_the_camera_was_held(orientation: int, suffix: str, tmp_path: Path) -> None:
    seen = Image.fromarray(np.zeros((16, 32, 3), np.uint8))
    seen.paste((255, 255, 255), (0, 0, 16, 8))  # the upper left quarter is white
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = seen.transpose(undo[orientation]) if orientation in undo else seen
    stored.save(tmp_path / f"a.{suffix}", exif=exif(orientation))
    found = np.asarray(read_image(tmp_path / f"a.{suffix}").image)
    assert found.shape == (16, 32, 3)
    quarters = [found[y : y + 8, x : x + 16].mean() for y in (0, 8) for x in (0, 16)]
    assert np.argmax(quarters) == 0
    assert quarters[0] > 200 > 50 > max(quarters[1:])


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ({"taken": "2026:05:04 12:00:00"}, 0),
        ({"taken": "2026:05:04 12:00:00", "zone": "+02:00"}, -7200),
        ({"taken": "2026:05:04 12:00:00", "zone_of_file": "-03:30"}, 12600),
        ({"taken": "2026:05:04 12:00:00", "zone": "+01:00", "zone_of_file": "-03:30"}, -3600),
        ({"taken": "2026:05:04 12:00:00", "zone": "  :  ", "fraction": "25"}, 0.25),
    ],
)
def test_exif_tells_when_a_picture_was_taken(
    times: dict[str, str], seconds: float, paint: Callable[..., Path], tmp_path: Path
) -> None:
    path = paint(tmp_path / "20200101_000000.jpg", exif=exif(**times))
    assert read_image(path).taken_ns == NOON_NS + round(seconds * 1e9)


@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        ("IMG_20260504_120000.JPG", True),
        ("20260504T120000.jpg", True),
        ("creek__2026-05-04__12-00-00(1).JPG", True),
        ("2026-05-04 12.00.00.png", True),
        ("20260504120000.jpg", False),
        ("20260504_126000.jpg", False),
        ("120260504_120000.jpg", False),
        ("2026-0504_120000.jpg", False),
        ("IMG_0001.JPG", False),
    ],
)
@pytest.mark.parametrize("taken", ["", "0000:00:00 00:00:00", "    :  :     :  :  ", "1970:01:01 00:00:00"])
def test_else_its_name_does(name: str, is_known: bool, taken: str) -> None:
    assert picture_taken_ns(name, taken) == (NOON_NS if is_known else None)


def test_damaged_metadata_does_not_lose_a_picture(paint: Callable[..., Path], tmp_path: Path) -> None:
    path = paint(tmp_path / "20260504_120000.jpg", exif=exif(6, taken="2026:05:04 12:00:00"))
    content = path.read_bytes()
    at = content.index(b"Exif\0\0") + 6
    path.write_bytes(content[: at + 8] + b"\xff" * 40 + content[at + 48 :])
    found = read_image(path)
    assert (found.image.size, found.taken_ns) == ((40, 24), NOON_NS)


def damage(paint: Callable[..., Path], folder: Path) -> dict[str, bytes]:
    whole = paint(folder / "whole.jpg", size=(400, 300)).read_bytes()
    png = paint(folder / "whole.png").read_bytes()
    return {
        "empty": b"",
        "text": b"no picture at all",
        "truncated": whole[: len(whole) // 2],
        "header only": whole[:20],
        "broken png": png[:60] + bytes(20) + png[80:],
    }


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "empty: no bytes"),
        ("text", "not a picture that can be read"),
        ("truncated", "truncated"),
        ("header only", ""),
        ("broken png", ""),
    ],
)
def test_what_cannot_be_read_whole_is_refused_with_a_reason(
    kind: str, reason: str, paint: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(damage(paint, tmp_path)[kind])
    found = try_image(path)
    assert isinstance(found, str)
    assert reason in found
    assert str(tmp_path) not in found
    with pytest.raises(ImageError, match=r"a\.jpg: expected a picture that can be read, found: .+"):
        read_image(path)


def test_a_picture_that_would_not_fit_into_memory_is_refused(
    paint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 24 - 1)
    assert try_image(paint(tmp_path / "a.jpg")) == "expected at most 959 pixels, found 40 x 24"


def test_files_of_other_programs_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    )  # would start one
    assert "not a picture" in str(try_image(tmp_path / "a.jpg"))
    assert "No such file" in str(try_image(tmp_path / "gone.jpg"))


def test_sound_needs_no_pillow() -> None:
    code = "import sys, edge.monitor, edge.check, edge.search; print('PIL' in sys.modules)"
    root = Path(images.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""Frames come upright: EXIF of images, the display matrix of videos."""

from io import BytesIO

import numpy as np
import pytest
from pictures import encoded, exif, jpeg_with_exif, mp4, png, png_with, tiff, webp_with, with_matrix

from refnet import clip
from refnet.errors import RefnetError
from refnet.inputs import orientation

MEANS = np.array(clip.PIXEL_MEANS)


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def loaded(path, **selection):
    """A clip of one frame as (H, W, 3) R, G, B again."""
    blob = clip.load(path, frames=1, **selection)[0, :, 0] + MEANS[:, None, None]
    return np.rint(blob).astype(np.uint8)[::-1].transpose(1, 2, 0)


def upright(stored, number):
    """EXIF 2.32, tag 274: what stored line 0 and column 0 are of the picture, one pixel at a time."""
    line_0, column_0 = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[number]
    h, w, _ = stored.shape
    seen = np.empty((w, h, 3) if line_0 in ("left", "right") else (h, w, 3), np.uint8)
    for i, j in np.ndindex(h, w):
        at = {}
        for edge, distance in ((line_0, i), (column_0, j)):
            at["x" if edge in ("left", "right") else "y"] = (edge, distance)
        y = at["y"][1] if at["y"][0] == "top" else seen.shape[0] - 1 - at["y"][1]
        x = at["x"][1] if at["x"][0] == "left" else seen.shape[1] - 1 - at["x"][1]
        seen[y, x] = stored[i, j]
    return seen


@pytest.mark.parametrize("number", range(1, 9))
def test_exif_is_obeyed(tmp_path, frame, number):
    lossless = {
        "a.png": png_with(png(frame), (b"eXIf", exif(number))),
        "big.png": png_with(png(frame), (b"eXIf", exif(number, ">"))),
        "a.tiff": tiff(frame, number),
    }
    for name, data in lossless.items():
        (tmp_path / name).write_bytes(data)
        assert np.array_equal(loaded(tmp_path / name), upright(frame, number)), name


@pytest.mark.parametrize(
    ("name", "muxer", "codec", "stored", "add"),
    [
        ("a.jpg", "image2pipe", "mjpeg", "yuvj444p", lambda data, block: jpeg_with_exif(data, block)),
        ("a.webp", "webp", "libwebp", "yuv420p", lambda data, block: webp_with(data, b"EXIF", block)),
        (
            "b.webp",
            "webp",
            "libwebp",
            "yuv420p",
            lambda data, block: webp_with(data, b"EXIF", b"Exif\0\0" + block),
        ),
    ],
)
def test_exif_of_formats_with_loss_is_obeyed(tmp_path, frame, name, muxer, codec, stored, add):
    data = encoded(frame[None], muxer=muxer, codec=codec, stored=stored)
    (tmp_path / name).write_bytes(data)
    as_stored = loaded(tmp_path / name)
    for number in range(1, 9):
        (tmp_path / name).write_bytes(add(data, exif(number)))
        assert np.array_equal(loaded(tmp_path / name), upright(as_stored, number)), number


@pytest.mark.parametrize(
    "block",
    [
        exif(0),
        exif(9),
        exif(6, tag=271),
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff\x12",
    ],
)
def test_exif_that_says_nothing_changes_nothing(block):
    """Whatever FFmpeg says to damaged EXIF, which is its to refuse."""
    data = png_with(png(np.zeros((2, 3, 3), np.uint8)), (b"eXIf", block))
    assert orientation.of_image("it", BytesIO(data)) == orientation.AS_STORED


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"\xff\xd8" + 5 * b"\xff", b"GIF89a", b"RIFF\0\0\0\0WEBP"]
)
def test_files_that_end_early_say_nothing(data):
    assert orientation.of_image("it", BytesIO(data)) in (None, orientation.AS_STORED)


@pytest.mark.parametrize(
    ("matrix", "number"),
    [
        ((1, 0, 0, 1), 1),
        ((-1, 0, 0, 1), 2),
        ((-1, 0, 0, -1), 3),
        ((1, 0, 0, -1), 4),
        ((0, 1, 1, 0), 5),
        ((0, 1, -1, 0), 6),
        ((0, -1, -1, 0), 7),
        ((0, -1, 1, 0), 8),
    ],
)
def test_a_display_matrix_is_obeyed(tmp_path, matrix, number):
    """(x', y') = (x a + y c, x b + y d), ISO/IEC 14496-12, 8.3.2: 0, 1, -1, 0 is a quarter turn clockwise."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    (tmp_path / "a.mp4").write_bytes(with_matrix(mp4(frames), matrix))
    for start in (0, 1):
        assert np.array_equal(loaded(tmp_path / "a.mp4", start=start), upright(frames[start], number))


def test_a_quarter_turn_of_64x96_comes_out_96x64(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    (tmp_path / "a.mp4").write_bytes(with_matrix(mp4(frames), (0, 1, -1, 0)))
    assert clip.load(tmp_path / "a.mp4", frames=1).shape == (1, 3, 1, 96, 64)
    assert np.array_equal(loaded(tmp_path / "a.mp4"), np.rot90(frames[0], -1))
    assert np.array_equal(loaded(tmp_path / "a.mp4", size=(96, 64)), np.rot90(frames[0], -1))


def test_what_is_turned_by_other_than_quarters_is_refused(tmp_path):
    frames = np.zeros((1, 64, 96, 3), np.uint8)
    (tmp_path / "a.mp4").write_bytes(with_matrix(mp4(frames), (1, 1, -1, 1)))
    with pytest.raises(RefnetError, match=r"a\.mp4 has a display matrix that turns by other than quarters"):
        clip.load(tmp_path / "a.mp4", frames=1)


def test_a_folder_of_turned_images_is_upright(tmp_path, frame):
    (tmp_path / "1.png").write_bytes(png(frame))
    (tmp_path / "2.png").write_bytes(png_with(png(frame), (b"eXIf", exif(6))))
    with pytest.raises(RefnetError, match="frames of sizes 4x6, 6x4: expected one size"):
        clip.load(tmp_path, frames=2)
    assert np.array_equal(loaded(tmp_path, start=1), np.rot90(frame, -1))

"""Images of every kind are read rightly, or refused in one line that says what to do."""

from fractions import Fraction
from zlib import compress

import av
import numpy as np
import pytest
from pictures import cmyk_jpeg, encoded, png, png_chunk, tiff, webp_with

from refnet import clip
from refnet.errors import RefnetError

MEANS = np.array(clip.PIXEL_MEANS)


def loaded(path, frames=1, **selection):
    """A clip as (T, H, W, 3) R, G, B again."""
    blob = clip.load(path, frames=frames, **selection)[0] + MEANS[:, None, None, None]
    return np.rint(blob).astype(np.uint8)[::-1].transpose(1, 2, 3, 0)


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def indexed_png(frame, alpha=b""):
    """24 pixels of 24 colours, by a palette; `alpha` for the first of them."""
    lines = b"".join(b"\0" + bytes(range(6 * i, 6 * i + 6)) for i in range(4))
    chunks = [(b"IHDR", bytes([0, 0, 0, 6, 0, 0, 0, 4, 8, 3, 0, 0, 0])), (b"PLTE", frame.tobytes())]
    chunks += [(b"tRNS", alpha)] if alpha else []
    chunks += [(b"IDAT", compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def test_grey_is_all_three_colours(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    files = {
        "a.png": png(grey, "gray", "gray"),
        "a.bmp": encoded(grey[None], muxer="image2pipe", codec="bmp", stored="gray", given="gray"),
        "a.tiff": encoded(grey[None], muxer="image2pipe", codec="tiff", stored="gray", given="gray"),
        "a.ppm": b"P5 16 16 255\n" + grey.tobytes(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert np.array_equal(loaded(tmp_path / name)[0], np.repeat(grey[..., None], 3, axis=2)), name


def test_one_bit_is_black_or_white(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P4 8 1\n" + bytes([0b01100001]))
    assert loaded(tmp_path / "a.ppm")[0, 0, :, 0].tolist() == [255, 0, 0, 255, 255, 255, 255, 0]


def test_a_palette_is_looked_up(tmp_path, frame):
    (tmp_path / "a.png").write_bytes(indexed_png(frame))
    assert np.array_equal(loaded(tmp_path / "a.png")[0], frame)
    (tmp_path / "a.png").write_bytes(indexed_png(frame, bytes([255, 255, 254])))
    with pytest.raises(RefnetError, match=r"a\.png has transparent pixels: expected opaque ones"):
        loaded(tmp_path / "a.png")


@pytest.mark.parametrize(("stored", "given"), [("rgba", "rgba"), ("ya8", "ya8")])
def test_alpha_is_taken_where_all_is_opaque(tmp_path, frame, stored, given):
    """Alone an opaque pixel has one colour; what is behind the others, the file does not say."""
    colours = frame if stored == "rgba" else frame[..., :1]
    raw = np.concatenate([colours, np.full((4, 6, 1), 255, np.uint8)], axis=2)

    def write():
        picture = av.VideoFrame(6, 4, stored)
        plane = np.zeros((4, picture.planes[0].line_size), np.uint8)
        plane[:, : raw[0].size] = raw.reshape(4, -1)
        picture.planes[0].update(plane.tobytes())
        context = av.CodecContext.create("png", "w")
        context.width, context.height, context.pix_fmt, context.time_base = 6, 4, stored, Fraction(1, 5)
        packets = context.encode(picture) + context.encode(None)
        (tmp_path / "a.png").write_bytes(b"".join(map(bytes, packets)))

    write()
    assert np.array_equal(loaded(tmp_path / "a.png")[0], np.broadcast_to(colours, (4, 6, 3)))
    raw[3, 5, -1] = 254
    write()
    with pytest.raises(RefnetError, match="has transparent pixels: expected opaque ones, on a background"):
        loaded(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda f: png(f, "rgb48be"), "has 16 bits a colour .rgb48be.: expected 8; convert it first"),
        (lambda f: png(f, "gray16be"), "has 16 bits a colour .gray16be.: expected 8"),
        (
            lambda f: encoded(f[None], muxer="matroska", codec="ffv1", stored="yuv420p10le"),
            "has 10 bits a colour .yuv420p10le.: expected 8",
        ),
        (lambda f: cmyk_jpeg(), "is a JPEG in CMYK, which an ink profile defines: expected RGB or grey"),
        (
            lambda f: webp_with(
                encoded(f[None], muxer="webp", codec="libwebp", stored="yuv420p"), b"ANIM", bytes(6)
            ),
            "is an animated WebP, which FFmpeg does not decode: expected a video, GIF or APNG",
        ),
    ],
)
def test_what_has_no_one_reading_is_refused(tmp_path, frame, data, message):
    (tmp_path / "a.png").write_bytes(data(frame))  # what a file is, its bytes say, not its name
    with pytest.raises(RefnetError, match=rf"clip .*a\.png {message}"):
        loaded(tmp_path / "a.png")


# Of 8 bits, FFmpeg's palette for GIF gives 3, 3 and 2 to R, G and B, and spreads them evenly over 0 to 255.
LEVELS = np.array([[0, 0, 0], [252, 252, 255]], np.uint8)


@pytest.mark.parametrize(("name", "codec", "stored"), [("a.apng", "apng", "rgb24"), ("a.gif", "gif", "bgr8")])
def test_the_frames_of_an_animation_are_frames(tmp_path, name, codec, stored):
    """Whole pictures, also where a file holds only what changes."""
    choice = np.random.default_rng(0).integers(0, 2, (5, 8, 8, 3))
    frames = np.take_along_axis(LEVELS, choice.reshape(-1, 3), axis=0).reshape(5, 8, 8, 3)
    frames[2:, :, :5] = frames[1, :, :5]
    (tmp_path / name).write_bytes(encoded(frames, muxer=codec, codec=codec, stored=stored))
    assert np.array_equal(loaded(tmp_path / name, 5), frames)
    assert np.array_equal(loaded(tmp_path / name, 2, start=1, stride=2), frames[[1, 3]])


def test_an_animation_among_images_is_refused(tmp_path, frame):
    frames = np.stack([frame, 255 - frame])
    (tmp_path / "1.png").write_bytes(png(frame))
    (tmp_path / "2.png").write_bytes(encoded(frames, muxer="apng", codec="apng"))
    assert np.array_equal(loaded(tmp_path)[0], frame)
    with pytest.raises(RefnetError, match=r"holds an animation, 2\.png: expected one frame an image, or"):
        loaded(tmp_path, 2)
    assert np.array_equal(loaded(tmp_path / "2.png", 2), frames)


def test_a_gif_of_one_frame_is_an_image(tmp_path):
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[:, 4:] = LEVELS[1]
    (tmp_path / "1.gif").write_bytes(encoded(frame[None], muxer="gif", codec="gif", stored="bgr8"))
    (tmp_path / "2.png").write_bytes(png(frame))
    assert np.array_equal(loaded(tmp_path, 2), np.stack([frame, frame]))


def test_a_picture_that_is_cut_off_is_refused(tmp_path, frame):
    for name, data in (
        ("a.tiff", tiff(frame, 1)),
        ("a.png", png(frame)),
        ("a.ppm", b"P6 6 4 255\n" + frame.tobytes()),
    ):
        for keep in (len(data) // 2, len(data) - 20):
            (tmp_path / name).write_bytes(data[:keep])
            with pytest.raises(RefnetError, match=r"be decoded|is damaged|too short"):
                loaded(tmp_path / name)


def test_a_picture_alone_is_a_clip_of_one_frame(tmp_path, frame):
    (tmp_path / "a.png").write_bytes(png(frame))
    assert np.array_equal(loaded(tmp_path / "a.png")[0], frame)
    with pytest.raises(RefnetError, match="too short: it has 1 frame, expected at least 2"):
        loaded(tmp_path / "a.png", 2)

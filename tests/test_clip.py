"""Clips from videos, folders of images and arrays."""

import os
import pickle
import re
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from pictures import encoded, png, png_chunk, png_with
from support import assert_within, every_dtype, unit

from refnet import cli, clip, golden, memory
from refnet.errors import RefnetError, ShapeError
from refnet.inputs import orientation, tensor_files
from refnet.inputs.decode import image_files
from refnet.inputs.resize import RESIZES, linear

MEANS = np.array([102.9801, 115.9465, 122.7717])


def expected(frames_rgb, dtype="float64"):
    """(T, H, W, 3) RGB -> (1, 3, T, H, W) BGR less the means in float32, one colour at a time."""
    t, h, w, _ = frames_rgb.shape
    blob = np.empty((1, 3, t, h, w), dtype)
    for i, (b, mean) in enumerate(zip((2, 1, 0), MEANS, strict=True)):
        blob[0, i] = (frames_rgb[..., b].astype(float) - mean).astype(np.float32)
    return blob


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (9, 6, 8, 3), np.uint8)


@every_dtype
def test_frames_of_an_array(tmp_path, frames, dtype):
    np.save(tmp_path / "a.npy", frames)
    np.savez(tmp_path / "a.npz", anything=frames)
    for name in ("a.npy", "a.npz"):
        found = clip.load(tmp_path / name, frames=3, stride=2, start=1, dtype=dtype)
        assert found.dtype == dtype and found.flags.c_contiguous
        assert np.array_equal(found, expected(frames[[1, 3, 5]], dtype))


def test_a_ready_blob_is_taken_as_it_is(tmp_path):
    blob = np.random.default_rng(0).standard_normal((2, 3, 5, 4, 4)).astype(">f4")
    np.save(tmp_path / "a.npy", blob)
    found = clip.load(tmp_path / "a.npy", frames=2, stride=3, start=1, size=(4, 4), dtype="float64")
    assert np.array_equal(found, blob[:, :, [1, 4]])
    with pytest.raises(RefnetError, match="ready blob of 4x4: expected 8x8"):
        clip.load(tmp_path / "a.npy", frames=2, size=(8, 8))
    blob[0, 0, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", blob)
    with pytest.raises(RefnetError, match="not finite in float64"):
        clip.load(tmp_path / "a.npy", frames=2)
    assert np.isnan(clip.load(tmp_path / "a.npy", frames=2, allow_nonfinite=True)).sum() == 1


def test_a_video_decodes_to_the_frames_asked_for(video):
    one = clip.load(video, frames=1, start=6, size=(24, 32))
    three = clip.load(video, frames=3, start=2, stride=2, size=(24, 32))
    assert three.shape == (1, 3, 3, 24, 32)
    assert np.array_equal(three[:, :, 2:], one)
    whole = clip.load(video, frames=1, start=6)
    assert whole.shape == (1, 3, 1, 720, 1280)
    pixels = whole + MEANS[:, None, None, None]
    # A difference of numbers below 256, rounded to float32, and a sum; whole numbers are not mostly zeros.
    assert_within(pixels, np.rint(pixels), 256 * (unit("float32") + 2 * unit("float64")))
    assert np.rint(pixels).min() >= 0 and np.rint(pixels).max() <= 255
    assert np.array_equal(
        one[0, :, 0], linear(whole[0, :, 0].transpose(1, 2, 0).astype("f4"), (24, 32)).transpose(2, 0, 1)
    )


def test_a_folder_of_images_is_read_in_natural_order(tmp_path, frames):
    names = [f"{i}.png" for i in range(1, 10)]
    for name, frame in zip(names, frames, strict=True):
        (tmp_path / name).write_bytes(png(frame))
    (tmp_path / "12.png").write_bytes(png(frames[0]))
    (tmp_path / "0010.PNG").write_bytes(png(frames[1]))
    (tmp_path / "notes.txt").write_text("not an image")
    order = [*range(9), 1, 0]
    assert np.array_equal(clip.load(tmp_path, frames=11), expected(frames[order]))
    assert np.array_equal(clip.load(tmp_path, frames=4, stride=3, start=1), expected(frames[order[1::3]]))
    with pytest.raises(RefnetError, match="too short: it has 11 frames, expected at least 12"):
        clip.load(tmp_path, frames=12)
    first = clip.digest(tmp_path)
    (tmp_path / "3.png").unlink()
    assert clip.digest(tmp_path) != first


def test_numbers_in_names_count_by_their_value(tmp_path):
    names = [
        "1.png",
        "01.png",
        "2.png",
        "10.png",
        "a1b2.png",
        "a1b10.png",
        "a2b1.png",
        "b" + 200 * "9" + ".png",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in image_files(tmp_path)] == ["01.png", *names[:1], *names[2:]]


def test_frames_are_resized_as_they_are_told(tmp_path, frames):
    """Each colour of each frame by itself, in float32, behind the means; and widened."""
    np.save(tmp_path / "a.npy", frames)
    for resize, how in RESIZES.items():
        for dtype in ("float32", "float64"):
            found = clip.load(tmp_path / "a.npy", frames=2, stride=3, size=(4, 5), resize=resize, dtype=dtype)
            assert found.dtype == dtype and found.shape == (1, 3, 2, 4, 5)
            whole = expected(frames[[0, 3]], "float32")
            for c, t in np.ndindex(3, 2):
                plane = how(whole[0, c, t, :, :, None], (4, 5))[..., 0]
                assert np.array_equal(found[0, c, t], plane.astype(dtype)), (resize, c, t)
    with pytest.raises(RefnetError, match="unknown way of resizing 'cubic': expected one of linear, area"):
        clip.load(tmp_path / "a.npy", frames=1, size=(4, 5), resize="cubic")
    with pytest.raises(RefnetError, match="frames of 6x8 cannot grow to 12x4 by area"):
        clip.load(tmp_path / "a.npy", frames=1, size=(12, 4), resize="area")


def test_a_column_between_the_taps_is_not_seen(tmp_path):
    """What `cv2.resize` gives, and Pillow, which widens its taps, does not."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4] = 255
    (tmp_path / "a.png").write_bytes(png(image))
    found = clip.load(tmp_path / "a.png", frames=1, size=(2, 2))
    assert np.array_equal(found, expected(np.zeros((1, 2, 2, 3), np.uint8)))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mp4", b"this is no video", "clip .*a.mp4 cannot be decoded: Invalid data found when"),
        ("a.mp4", b"", "cannot be decoded"),
        ("a.npy", b"\x93NUMPY", "clip .*a.npy ends within its header: it is damaged$"),
        ("a.npy", b"\x93NUMPY\x01\x00v", "clip .*a.npy ends within its header: it is damaged$"),
        ("a.npy", b"", "clip .*a.npy ends within its header: it is damaged$"),
        (
            "a.npy",
            b"GIF89a",
            r"a.npy begins with b'GIF89a': expected b'\\x93NUMPY', as np.save writes",
        ),
        ("a.npz", b"PK\x03\x04 broken", "not a readable array file"),
        ("a.npy", pickle.dumps(Bomb()), r"begins with b'.*': expected b'\\x93NUMPY', as np.save writes"),
    ],
)
def test_broken_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RefnetError, match=message):
        clip.load(tmp_path / name)


def test_a_truncated_video_is_refused(tmp_path, video):
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:60_000])
    with pytest.raises(RefnetError, match=r"cannot be decoded|too short"):
        clip.load(tmp_path / "cut.mp4", frames=100, size=(16, 16))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([Bomb()], object), "is object 1: expected uint8 frames"),
        (np.zeros((4, 6, 8, 3)), "is float64 4x6x8x3: expected uint8 frames"),
        (np.zeros((4, 6, 8, 4), np.uint8), "expected uint8 frames"),
        (np.zeros((4, 0, 8, 3), np.uint8), "has frames of 0x8: expected a pixel at least"),
        (np.zeros((1, 4, 4, 6, 8)), "expected N x 3 x T x H x W"),
        (np.zeros((1, 3, 4, 6, 8), int), "is an int64 blob"),
        (np.zeros((4, 6, 8, 3), np.uint8), "too short: it has 4 frames, expected at least 8"),
    ],
)
def test_arrays_that_are_no_clips_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(RefnetError, match=message):
        clip.load(tmp_path / "a.npy")


def test_a_damaged_video_is_refused(tmp_path, video):
    data = bytearray(video.read_bytes())
    for i in range(100_000, len(data), 5000):
        data[i] ^= 0xFF
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(RefnetError, match=r"cannot be decoded|is damaged|too short"):
        clip.load(tmp_path / "bad.mp4", frames=132, size=(16, 16))


def test_a_clip_cannot_name_another(tmp_path, video):
    (tmp_path / "other.mp4").write_bytes(video.read_bytes())
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(RefnetError, match="cannot be decoded"):
        clip.load(tmp_path / "list.mp4", size=(16, 16))


def test_what_would_not_fit_is_refused_before_it_is_read(tmp_path, video, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros((40, 500, 500, 3), np.uint8))
    monkeypatch.setattr(memory, "available", lambda: 29_000_000)
    with pytest.raises(RefnetError, match=r"clip .*bomb.npz needs about 28.6 MiB of memory"):
        clip.load(tmp_path / "bomb.npz", frames=1, size=(16, 16))
    with pytest.raises(RefnetError, match="a clip of 132 frames of 720x1280 needs"):
        clip.load(video, frames=132)
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (10**15, 2, 2, 3)}"
    header = header.replace(b"10**15", b"1" + b"0" * 15)
    (tmp_path / "lie.npy").write_bytes(header.ljust(127) + b"\n" + bytes(100))
    with pytest.raises(RefnetError, match=r"lie\.npy should have 120{15} bytes of values and has 100"):
        clip.load(tmp_path / "lie.npy")


def test_any_damage_of_a_header_is_said_in_our_words(tmp_path):
    """Each byte of it, wrong in some ways: what is taken has the right frames."""
    frames = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    np.save(tmp_path / "a.npy", frames)
    right, whole = (tmp_path / "a.npy").read_bytes(), clip.load(tmp_path / "a.npy", frames=2)
    for at in range(128):
        for wrong in b"\0A'({[\n\xff":
            (tmp_path / "a.npy").write_bytes(right[:at] + bytes([wrong]) + right[at + 1 :])
            try:
                found = clip.load(tmp_path / "a.npy", frames=2)
            except RefnetError as error:
                said = str(error).removeprefix(f"clip {tmp_path / 'a.npy'} ")
                assert re.match(r"begins with|has |is |should have .* damaged$|ends ", said), said
                assert not re.search("readable|EOF|malformed|Cannot|ast", said), said
            else:
                assert np.array_equal(found, whole)


def test_archives_of_something_else_are_refused(tmp_path):
    with ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(RefnetError, match="begins with b'hello'"):
        clip.load(tmp_path / "a.npz")


def test_other_nonsense_is_refused(tmp_path, video):
    with pytest.raises(RefnetError, match="does not exist"):
        clip.load(tmp_path / "nothing.mp4")
    with pytest.raises(RefnetError, match="holds no images"):
        clip.load(tmp_path)
    with pytest.raises(
        RefnetError, match="has 132 frames, expected at least 701 .frames 8, stride 100, start 0"
    ):
        clip.load(video, stride=100, size=(8, 8))
    with pytest.raises(RefnetError, match="frames is 0"):
        clip.load(video, frames=0)
    with pytest.raises(RefnetError, match="start is -1"):
        clip.load(video, start=-1)
    with pytest.raises(RefnetError, match="clip size W is 0"):
        clip.load(video, size=(8, 0))
    with pytest.raises(RefnetError, match="unknown dtype"):
        clip.load(video, dtype="uint8")
    with pytest.raises(RefnetError, match="a clip of 8 frames of 1000000x1000000 needs about .* of memory"):
        clip.load(video, size=(10**6, 10**6))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(RefnetError, match="holds arrays a, b: expected exactly one"):
        clip.load(tmp_path / "two.npz")


def archive():
    file = BytesIO()
    np.savez(file, frames=np.zeros((8, 4, 4, 3), np.uint8))
    return file.getvalue()


def empty_frames(*shape):
    file = BytesIO()
    np.save(file, np.zeros(shape, np.uint8))
    return file.getvalue()


def announced(height, width):
    """A PNG of some 80 bytes that announces this size; its first line is there."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(bytes(1 + width // 8)))
    return b"\x89PNG\r\n\x1a\n" + head + data + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>", "cannot decode"),
        ("a.npy", archive(), "it is an archive, whose name should end in .npz"),
        ("a.npy", empty_frames(8, 0, 4, 3), "has frames of 0x4: expected a pixel at least"),
        ("a.png", announced(0, 4), "cannot be decoded|has frames of 0x4: expected a pixel at least"),
        ("a.png", announced(16000, 16000), "a clip of 1 frames of 16000x16000 needs about 8.6 GiB of memory"),
        (
            "a.png",
            announced(10**5, 10**5),
            "frames of 100000x100000, and there is memory for [0-9]+ pixels",
        ),
    ],
)
def test_what_is_odd_is_one_line_and_exit_2(tmp_path, capsys, monkeypatch, name, content, message):
    monkeypatch.setattr(memory, "available", lambda: 8 * 2**30)
    (tmp_path / name).write_bytes(content)
    arguments = ("golden", "make", "resnet18_conv4", "out", "--clip", name, "--frames", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["refnet", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1, err
    assert re.search(message, err), err


def test_a_title_in_another_encoding_is_nobody_s_concern(tmp_path, frames):
    """Metadata that is not UTF-8 was a traceback of PyAV's."""
    video = encoded(frames, muxer="matroska", codec="ffv1", stored="bgr0", title="Cafxy")
    assert b"Cafxy" in video
    (tmp_path / "a.mkv").write_bytes(video.replace(b"Cafxy", b"Caf\xe9!"))
    assert np.array_equal(clip.load(tmp_path / "a.mkv", frames=9), expected(frames))
    titled = png_with(png(frames[0]), (b"tEXt", b"Title\0Caf\xe9"))
    (tmp_path / "a.png").write_bytes(titled)
    assert np.array_equal(clip.load(tmp_path / "a.png", frames=1), expected(frames[:1]))


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(RefnetError, match="a pipe or a device"):
        clip.load(tmp_path / "a.png", frames=1)
    with pytest.raises(RefnetError, match=r"a\.png is no file"):
        clip.load(tmp_path, frames=1)


def test_sizes_are_judged_before_a_pixel_is_decoded(tmp_path, frames):
    """By the memory, and by whoever the blob is for; of every kind of clip."""
    (tmp_path / "folder").mkdir()
    for i, frame in enumerate(frames):
        (tmp_path / "folder" / f"{i}.png").write_bytes(png(frame))
    (tmp_path / "a.png").write_bytes(announced(6, 8))  # which cannot be decoded
    np.save(tmp_path / "frames.npy", frames)
    np.savez(tmp_path / "frames.npz", frames)
    np.save(tmp_path / "blob.npy", np.zeros((1, 3, 2, 6, 8), np.float32))

    def judge(shape):
        seen.append(shape)
        raise ShapeError("too large for it")

    for name in ("folder", "a.png", "frames.npy", "frames.npz", "blob.npy"):
        seen = []
        with pytest.raises(ShapeError, match="too large for it"):
            clip.read(tmp_path / name, clip.Selection(frames=2), judge=judge)
        assert seen == [(1, 3, 2, 6, 8)], name
    seen = []
    with pytest.raises(ShapeError, match="too large for it"):
        clip.read(tmp_path / "a.png", clip.Selection(frames=2, size=(4, 5)), judge=judge)
    assert seen == [(1, 3, 2, 4, 5)]


def test_a_clip_is_judged_by_the_net_that_it_is_for(tmp_path, frames, monkeypatch):
    (tmp_path / "a.png").write_bytes(announced(2048, 2048))
    recipe = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32))
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    with pytest.raises(RefnetError, match="resnet18_conv4 on 1x3x1x2048x2048 needs about"):
        golden.clip_recipe(tmp_path / "a.png", clip.Selection(frames=1), recipe)


def test_a_header_of_spaces_is_not_read(tmp_path):
    """64 MiB of header in a file of some kilobytes: an archive, and a sparse file."""
    head = b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 26)
    with ZipFile(tmp_path / "a.npz", "w", ZIP_DEFLATED) as written, written.open("a.npy", "w") as member:
        member.write(head)
        for _ in range(64):
            member.write(b" " * (1 << 20))
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(head)
        file.truncate(1 << 26)
    script = (
        "import resource, sys\nfrom refnet import clip, errors\nclip.Selection()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        clip.load(name)\n"
        "    except errors.FileError as error:\n        print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.npz", tmp_path / "a.npy"],
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, kilobytes = done.stdout.splitlines()
    assert len(lines) == 2 and all(
        "has a header of 67108864 bytes: expected 10000 at most" in line for line in lines
    )
    assert int(kilobytes) < 1 << 14


def test_a_file_of_blocks_without_end_is_not_searched_for_ever(tmp_path):
    """A sparse PNG of 2**40 zeros has as many empty chunks."""
    with (tmp_path / "a.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(1 << 40)
    with (tmp_path / "a.png").open("rb") as file:
        assert orientation.of_image("a.png", file) == orientation.AS_STORED


def test_arrays_that_python_2_wrote_are_read_without_a_warning(refnet, tmp_path, frames):
    """Their shapes were long integers; the header stays as long as it says."""
    np.save(tmp_path / "new.npy", frames)
    old = (tmp_path / "new.npy").read_bytes().replace(b"(9, 6,", b"(9L,6,")
    assert b"9L" in old
    (tmp_path / "old.npy").write_bytes(old)
    with ZipFile(tmp_path / "old.npz", "w") as archive:
        archive.writestr("frames.npy", old)
    assert tensor_files.read("old.npz")["frames"].shape == frames.shape
    for name in ("old.npy", "old.npz"):
        assert np.array_equal(clip.load(name, frames=3), clip.load("new.npy", frames=3))
        assert refnet("trace", "resnet18_conv4", "--clip", name, "--frames", 1)[::2] == (0, "")

"""Images and videos for the tests of clips, made by PyAV or byte by byte."""

import struct
from io import BytesIO
from zlib import crc32

import av
import numpy as np


def encoded(frames, *, muxer, codec, stored="rgb24", given="rgb24", title=""):
    """The bytes of a file that holds these frames, (T, H, W[, C]) uint8 in the format `given`."""
    file = BytesIO()
    with av.open(file, "w", format=muxer) as out:
        if title:
            out.metadata["title"] = title
        stream = out.add_stream(codec, rate=5)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = stored
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=given)))
        out.mux(stream.encode())
    return file.getvalue()


def png(frame, stored="rgb24", given="rgb24"):
    return encoded(frame[None], muxer="image2pipe", codec="png", stored=stored, given=given)


def mp4(frames):
    """A video without loss: the frames are PNG inside."""
    return encoded(frames, muxer="mp4", codec="png")


def with_matrix(data, entries):
    """An mp4 whose track header has this display matrix, (a, b, c, d) of 1 in 16.16, row by row."""
    at = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2, version 0
    a, b, c, d = (entry << 16 for entry in entries)
    return data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]


def exif(number, order="<", tag=274):
    """A block of EXIF with one entry: the orientation, a SHORT."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}IHHHIHxxI", 8, 1, tag, 3, 1, number, 0)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))


def png_with(data, *chunks):
    """A PNG with more chunks behind its header."""
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


def jpeg_with_exif(data, block):
    segment = b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def webp_with(data, name, block):
    chunk = name + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
    return data[:4] + struct.pack("<I", len(data) + len(chunk) - 8) + data[8:] + chunk


def tiff(frame, orientation):
    """Uncompressed R, G, B in one strip (TIFF 6.0)."""
    height, width, _ = frame.shape
    tags = [
        (256, 3, width),
        (257, 3, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 2),
        (273, 4, 8),
        (274, 3, orientation),
        (277, 3, 3),
        (278, 3, height),
        (279, 4, frame.size),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + frame.size) + frame.tobytes() + directory


def cmyk_jpeg():
    """8 x 8 pixels of four colours, all coefficients 0 (ITU-T T.81, baseline), with Adobe's segment."""

    def segment(marker, data):
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    components = b"".join(bytes([i, 0x11, 0]) for i in range(4))
    one_code = bytes([1] + 15 * [0] + [0])  # a single code, of one bit, that means 0
    return (
        b"\xff\xd8"
        + segment(0xEE, b"Adobe\0d\0\0\0\0\0")
        + segment(0xDB, bytes([0] + 64 * [1]))
        + segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + components)
        + segment(0xC4, b"\x00" + one_code + b"\x10" + one_code)
        + segment(0xDA, bytes([4, 0, 0, 1, 0, 2, 0, 3, 0, 0, 63, 0]))
        + b"\x00\xff\xd9"
    )

"""Images and videos for the tests of clips, made by PyAV or byte by byte."""

from io import BytesIO

import av
import numpy as np


def encoded(frames, *, muxer, codec, stored="rgb24", given="rgb24"):
    """The bytes of a file that holds these frames, (T, H, W[, C]) uint8 in the format `given`."""
    file = BytesIO()
    with av.open(file, "w", format=muxer) as out:
        stream = out.add_stream(codec, rate=5)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = stored
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=given)))
        out.mux(stream.encode())
    return file.getvalue()


def png(frame, stored="rgb24", given="rgb24"):
    return encoded(frame[None], muxer="image2pipe", codec="png", stored=stored, given=given)

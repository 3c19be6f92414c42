"""Standard output: whoever reads it may stop, and what it cannot show is no reason to fail."""

import io
from typing import Any, TextIO


class Unminding(io.FileIO):
    """A file descriptor that minds no reader who has seen enough; of any other failure it tells once."""

    failed = False
    of: TextIO  # which would close the descriptor if nothing referred to it

    def write(self, data: Any) -> int:
        """Write, as `io.FileIO.write` does; after a failure, nowhere."""
        if not self.failed:
            try:
                return super().write(data)
            except BrokenPipeError:
                self.failed = True
            except OSError:
                self.failed = True
                raise
        return memoryview(data).nbytes


def unminding(stream: TextIO | None) -> TextIO:
    """What stands for standard output, so that an exit code says what a command found.

    Where whoever called has closed it, it takes everything; a character that it has not is seen as ``?``.
    """
    if stream is None:
        return io.StringIO()
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if stream.errors == "strict":
        stream.reconfigure(errors="replace")
    try:
        raw = Unminding(stream.fileno(), "w", closefd=False)
    except OSError:  # in memory
        return stream
    raw.of = stream
    lines = stream.line_buffering
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=lines)

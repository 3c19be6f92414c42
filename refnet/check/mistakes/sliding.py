"""Windows that lie elsewhere than those of a call."""

import numpy as np

from refnet.arrays import Array
from refnet.check.mistakes.changes import along_axis
from refnet.check.replay import Call
from refnet.op import OUTPUT
from refnet.shapes import ZEROS, Geometry, Shape, Triple, size, taps


def windowed(
    call: Call,
    *,
    stride: Triple | None = None,
    before: Triple | None = None,
    dilation: Triple | None = None,
    edge: bool | str = False,
    counts_padding: bool = False,
) -> Array:
    """The result of windows of another stride, dilation or offset, the shapes of x and y being what they are.

    Parameters
    ----------
    stride, dilation : triple, optional
    before : triple, optional
        How far before x the first window begins. What follows x is as long as the windows need.
    edge : bool or str
        Whether the padding repeats the border of x, or along which of "THW" it does; elsewhere it is what
        changes nothing.
    counts_padding : bool
        Whether an average is over all of the window.
    """
    assert call.window is not None, "no window slides here"
    own = call.window
    window = Geometry(own.kernel, stride or own.stride, before or own.pad, dilation or own.dilation)
    x, outputs = call["x"], call.output_shape[2:]
    places = [
        np.arange((m - 1) * s + d * (k - 1) + 1) - p for m, k, s, p, d in zip(outputs, *window, strict=True)
    ]
    pools = call.judge.op.family == "pooling"
    repeats = "THW" if edge is True else edge or ""
    padded = _embedded(x, places, repeats, -np.inf if pools and chooses(call) else 0.0)
    attrs = {"stride": window.stride, "pad": ZEROS}
    if call.attribute("dilation") is not None:
        attrs["dilation"] = window.dilation
    scale = np.ones(outputs)
    if pools and not chooses(call) and not counts_padding:
        scale = size(window.kernel) / counts(call, window)
    if call.subject == "y":
        return np.asarray(call.of({"x": padded}, attrs=attrs) * scale)
    result = call.of({"x": padded, "dy": call["dy"] * scale}, attrs=attrs)
    return _gathered(result, places, x.shape[2:], repeats) if call.subject == "x" else result


def chooses(call: Call) -> bool:
    """Whether a pool chooses a value, which backward finds by comparing it with x: the others average."""
    return OUTPUT in call.judge.op.keeps


def _embedded(x: Array, places: list[Array], edge: str, fill: float) -> Array:
    """Read x at places of T, H and W, some of them outside."""
    for axis, (at, n) in enumerate(zip(places, x.shape[2:], strict=True), 2):
        x = np.take(x, at.clip(0, n - 1), axis)
        if "THW"[axis - 2] not in edge:
            x[(*(slice(None),) * axis, (at < 0) | (at >= n))] = fill
    return x


def _gathered(gradient: Array, places: list[Array], shape: Shape, edge: str) -> Array:
    """Add up the gradients of what was read at these places."""
    for axis, (at, n) in enumerate(zip(places, shape, strict=True), 2):
        total = np.zeros((*gradient.shape[:axis], n, *gradient.shape[axis + 1 :]))
        for j, i in enumerate(at.tolist()):
            if "THW"[axis - 2] in edge or 0 <= i < n:
                total[along_axis(axis, min(max(i, 0), n - 1))] += gradient[along_axis(axis, j)]
        gradient = total
    return gradient


def inside(call: Call) -> Array:
    """Which output positions have windows that do not reach into the padding: 1 or 0, (oT, oH, oW)."""
    assert call.window is not None, "no window slides here"
    along = []
    for n, m, k, s, p, d in zip(call["x"].shape[2:], call.output_shape[2:], *call.window, strict=True):
        first = np.arange(m) * s - p
        along.append((first >= 0) & (first + d * (k - 1) < n))
    t, h, w = along
    return np.asarray(t[:, None, None] & h[:, None] & w, np.float64)


def counts(call: Call, window: Geometry | None = None) -> Array:
    """How many values of each window lie inside x, (oT, oH, oW)."""
    window = window or call.window
    assert window is not None, "no window slides here"
    found = np.zeros(call.output_shape[2:])
    for _, reached, _ in taps(call["x"].shape, call.output_shape, window):
        found[reached] += 1
    return found

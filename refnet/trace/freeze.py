"""What stopping the gradient saves, and what it gives up: freeze points side by side, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from refnet.arithmetic import Arithmetic
from refnet.arrays import Array
from refnet.errors import require_callable, require_kind
from refnet.net import Net
from refnet.remat import blob_bytes
from refnet.run import Run, backward, forward
from refnet.shapes import size
from refnet.timing import seconds
from refnet.trace.nodes import backward_multiply_adds


@dataclass(frozen=True)
class FreezePoint:
    """What stopping the gradient behind one stage saves, and what it gives up.

    Attributes
    ----------
    freeze_at : int
    multiply_adds : int
        Of the backward pass: as many as forward for each gradient of a product that is computed.
    bytes : int
        Of the blobs that are held at once while only outputs are kept: what backward needs is.
    seconds : float
        Of the backward pass, the median of the later half of several.
    params_share : float
        Parameters behind the stop, as a share of all.
    gradient_share : float
        Norm of the gradient of those parameters, as a share of the whole gradient's, when nothing is
        stopped: what training does not see.
    """

    freeze_at: int
    multiply_adds: int
    bytes: int
    seconds: float
    params_share: float
    gradient_share: float


def freeze_points(
    build: Callable[[int], Net],
    points: Iterable[int],
    given: Mapping[str, Array],
    output_gradient: Callable[[Net], Mapping[str, Array]],
    arithmetic: str | Arithmetic = "core",
    *,
    repeat: int = 3,
    on_point: Callable[[int], None] | None = None,
) -> list[FreezePoint]:
    """Run a network backward with the gradient stopped at several stages, side by side.

    Parameters
    ----------
    build : callable
        The network for a value of `freeze_at`; all have the same parameters.
    points : iterable of int
    given : mapping of str to ndarray
        Inputs and parameters.
    output_gradient : callable
        The dy that backward starts from, for a network.
    arithmetic : str or Arithmetic
    repeat : int
        How often each backward pass is timed, at least, after one to warm up.
    on_point : callable, optional
        Told each point once it is done.

    Returns
    -------
    list of FreezePoint
    """
    require_callable("build", build)
    require_callable("output_gradient", output_gradient)
    require_kind("points", points, Iterable, "of stages' numbers")
    free = build(0)
    gradient = backward(forward(free, given, arithmetic, keep="outputs"), output_gradient(free))
    learnt = [name for name in free.params if name in gradient]
    squares = {name: float(np.vdot(gradient[name], gradient[name])) for name in learnt}
    measured = []
    for point in points:
        net = build(point)
        dy = output_gradient(net)
        flow = net.gradient_flow()
        behind = [name for name in learnt if name not in flow]
        measured.append(
            FreezePoint(
                point,
                backward_multiply_adds(net),
                blob_bytes(net, next(iter(given.values())).itemsize, keep="outputs"),
                _seconds(net, given, dy, arithmetic, repeat),
                sum(size(net.params[name]) for name in behind)
                / sum(size(net.params[name]) for name in learnt),
                sqrt(sum(squares[name] for name in behind) / sum(squares.values())),
            )
        )
        if on_point is not None:
            on_point(point)
    return measured


def _seconds(
    net: Net, given: Mapping[str, Array], dy: Mapping[str, Array], arithmetic: str | Arithmetic, repeat: int
) -> float:
    """Time backward, once more to warm up; each goes through a run of its own, which it uses up."""

    def arguments() -> tuple[Run, Mapping[str, Array]]:
        return forward(net, given, arithmetic, keep="outputs"), dy

    return seconds(backward, arguments, least=1 + repeat)

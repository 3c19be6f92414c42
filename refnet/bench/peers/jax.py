"""JAX on the CPU: each direction compiled by XLA beforehand, gradients by transposing the convolution."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from refnet.arrays import Array
from refnet.bench.peer import Call, Calls, Peer, convolution_only
from refnet.bench.problem import Problem
from refnet.shapes import ONES, ZEROS

# How many threads XLA's client starts; read when the client is made.
THREADS = "PJRT_NPROC"


@convolution_only
def operator(threads: int, problem: Problem, inputs: Sequence[Array], dy: Array) -> Calls:
    """Convolution; what is timed ends when the result is there."""
    import jax

    _hold(threads)
    attrs = problem.case.attrs
    jx, jw, jdy = map(jax.numpy.asarray, (*inputs, dy))

    def product(x: Any, w: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x,
            w,
            attrs.get("stride", ONES),
            [(p, p) for p in attrs.get("pad", ZEROS)],
            rhs_dilation=attrs.get("dilation", ONES),
            feature_group_count=attrs.get("groups", 1),
        )

    def input_gradient(w: Any, dy: Any) -> Any:
        return jax.linear_transpose(lambda x: product(x, w), jx)(dy)[0]

    def weight_gradient(x: Any, dy: Any) -> Any:
        return jax.linear_transpose(lambda w: product(x, w), jw)(dy)[0]

    return {
        "forward": _compiled("y", product, jx, jw),
        "dx": _compiled("dx", input_gradient, jw, jdy),
        "dw": _compiled("dw", weight_gradient, jx, jdy),
    }


def _hold(threads: int) -> None:
    """Compute with that many threads, on the CPU, in float64 where that is asked for."""
    import jax
    from jax.extend.backend import clear_backends

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    if os.environ.get(THREADS) != str(threads):
        os.environ[THREADS] = str(threads)
        clear_backends()


def _compiled(name: str, function: Callable[..., Any], *arguments: Any) -> Call:
    import jax
    import numpy as np

    compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: {name: np.asarray(compiled(*arguments).block_until_ready())}


PEER = Peer("jax", ("jax",), f"{THREADS} of XLA's client", operator)

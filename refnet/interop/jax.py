"""What a function of JAX's arrays computes, by the names of a net's nodes.

JAX is imported where it is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refnet.arrays import REAL, Array, require_mapping, seen_by_numpy
from refnet.check.certification import certify
from refnet.check.report import Report
from refnet.errors import DTypeError, ShapeError, ValueRangeError, require_known
from refnet.inputs import fill
from refnet.inputs.candidate import Candidate
from refnet.modules import peer
from refnet.net import Net, require_net
from refnet.shapes import text

# Takes the inputs and parameters by name, and a tap: tap(name, value) returns the value.
Function = Callable[[Mapping[str, Any], Callable[[str, Any], Any]], Any]


def capture(
    function: Function,
    given: Mapping[str, Any],
    *,
    output_gradients: Mapping[str, Any] | None = None,
    seed: int = 0,
    jit: bool = True,
) -> Candidate:
    """Compute a function and its gradients once, and keep what is tapped.

    Parameters
    ----------
    function : callable
        ``function(given, tap)``: each value that has a node's name goes through ``tap(name, value)``,
        which returns it as it is, for all that reads it. Parts of it may be compiled (`jax.jit`) as long as
        taps are outside of these parts.
    given : mapping of str to array_like
        Inputs and parameters by the net's names, in the layout that the function takes. Gradients are
        computed of those of real numbers.
    output_gradients : mapping of str to array_like, optional
        dy by node, in the shape of what was tapped. By default those of what the function returns, drawn as
        `fill.output_gradients` draws them: U(-1, 1), or 1 of the losses alone. Empty: no backward pass.
    seed : int
        Of what is drawn.
    jit : bool
        Whether the whole is compiled, or computed operation by operation.

    Returns
    -------
    Candidate
        In float32 or float64, narrower formats as float32. A gradient that no path leads to, as behind
        `lax.stop_gradient`, is absent.

    Raises
    ------
    RefnetError
        If a name is tapped twice or unknown, or the function returns what was not tapped, or JAX has no such
        dtype (`jax_enable_x64`).
    """
    jax = peer("jax")

    require_mapping("given", given)
    arrays = {name: _taken(jax, name, value) for name, value in given.items()}
    real = {name: array for name, array in arrays.items() if _is_real(jax, array)}
    shapes, returned, dependent = _traced(jax, function, arrays, real)
    dy = _starts(jax, shapes, returned, output_gradients, seed)
    slots = {name: jax.numpy.zeros(shapes[name].shape, shapes[name].dtype) for name in dependent}
    reached: set[str] = set()

    def step(real: Any, slots: Any, dy: Any) -> Any:
        def run(real: Any, slots: Any) -> Any:
            tap = _Tap(jax, slots, reached)
            function(arrays | {name: tap.marked(f"given {name}", a) for name, a in real.items()}, tap)
            return {name: tap.values[name] for name in dy}, tap.values

        _, backward, blobs = jax.vjp(run, real, slots, has_aux=True)
        return blobs, backward(dy)

    blobs, (gradients, arrived) = (jax.jit(step) if jit else step)(real, slots, dy)
    return Candidate(
        blobs={name: values(blobs[name]) for name in shapes},
        gradients={name: values(g) for name, g in gradients.items() if f"given {name}" in reached},
        blob_gradients={name: values(arrived[name]) for name in dependent if name in reached},
        output_gradients={name: values(start) for name, start in dy.items()},
        given={name: values(array) for name, array in arrays.items()},
    )


def compare(
    function: Function,
    net: Net,
    given: Mapping[str, Any],
    *,
    output_gradients: Mapping[str, Any] | None = None,
    seed: int = 0,
    jit: bool = True,
    axes: str = "NCTHW",
    kernel_axes: str = "KCTHW",
    **claims: Any,
) -> Report:
    """Capture a function, and certify what it computes as a net.

    Parameters
    ----------
    function, given, output_gradients, seed, jit
        As `capture` takes them.
    net : Net
        What the function should be, for these inputs.
    axes, kernel_axes : str
        The order of the axes of the function's blobs and kernels, such as "NTHWC" and "THWCK".
    **claims
        What the function claims, and all else that `certify` takes.

    Returns
    -------
    Report

    Raises
    ------
    RefnetError
        As `capture` and `certify` say.
    """
    require_net(net)
    found = capture(function, given, output_gradients=output_gradients, seed=seed, jit=jit)
    return certify(net, {}, found, axes=axes, kernel_axes=kernel_axes, **claims)


class _Tap:
    """Records values by name; a copy of the gradient of each goes to its slot, an argument that adds nothing.

    Attributes
    ----------
    values : dict of str to array
        What was tapped.
    dependent : list of str
        Those that a derivative leads to.
    reached : set of str
        Those that a gradient came back to.
    """

    def __init__(self, jax: Any, slots: Mapping[str, Any], reached: set[str]):
        self._jax, self._slots = jax, slots
        self.values: dict[str, Any] = {}
        self.dependent: list[str] = []
        self.reached = reached

    def __call__(self, name: str, value: Any) -> Any:
        if name in self.values:
            raise ValueRangeError(f"{name} is tapped twice: expected one value of each node")
        value = self._jax.numpy.asarray(value)
        if _is_real(self._jax, value):
            value = self.marked(name, value, *([self._slots[name]] if name in self._slots else []))
        self.values[name] = value
        return value

    def marked(self, name: str, value: Any, *slot: Any) -> Any:
        """The value itself. JAX calls its backward only where a path leads on from it to an output."""

        def same(value: Any, *slot: Any) -> Any:
            return value

        def forward(value: Any, *slot: Any) -> tuple[Any, None]:
            if value.perturbed:
                self.dependent.append(name)
            return value.value, None

        def backward(_: None, dy: Any) -> tuple[Any, ...]:
            self.reached.add(name)
            return (dy,) * (1 + len(slot))

        identity = self._jax.custom_vjp(same)
        identity.defvjp(forward, backward, symbolic_zeros=True)
        return identity(value, *slot)


def _traced(
    jax: Any, function: Function, arrays: Mapping[str, Any], real: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """What is tapped: its shapes, which of it is returned, and which depends on what has a gradient."""
    tap, returned = _Tap(jax, {}, set()), []

    def run(real: Mapping[str, Any]) -> dict[str, Any]:
        outputs = jax.tree.leaves(function({**arrays, **real}, tap))
        for index, output in enumerate(outputs):
            known = [name for name, value in tap.values.items() if value is output]
            if not known:
                raise ValueRangeError(
                    f"output {index} of the function, {text(np.shape(output))}, is not tapped: "
                    "expected what tap(name, value) returned"
                )
            returned.append(known[-1])
        return dict(tap.values)

    found = jax.eval_shape(lambda real: jax.vjp(run, real)[0], real)
    return {name: found[name] for name in tap.values}, returned, tap.dependent


def _starts(
    jax: Any,
    shapes: Mapping[str, Any],
    returned: list[str],
    output_gradients: Mapping[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    """The gradients that a backward pass starts from, in the formats of the values."""
    if output_gradients is None:
        found: Mapping[str, Any] = fill.gradients_of({name: shapes[name].shape for name in returned}, seed)
    else:
        require_mapping("output_gradients", output_gradients)
        found = output_gradients
    for name, dy in found.items():
        require_known("node to start backward from", name, shapes)
        if np.shape(dy) != shapes[name].shape:
            raise ShapeError(
                f"gradient of {name} has shape {text(np.shape(dy))}: expected {text(shapes[name].shape)}"
            )
    return {name: jax.numpy.asarray(dy, shapes[name].dtype) for name, dy in found.items()}


def _taken(jax: Any, name: str, value: Any) -> Any:
    """An array of JAX's, of the dtype that it had."""
    if not isinstance(value, jax.Array):
        value = seen_by_numpy(name, value, "numbers")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = jax.numpy.asarray(value)
    except TypeError:
        raise DTypeError(f"{name} is {value.dtype}: expected an array of numbers") from None
    if array.dtype != value.dtype and value.dtype.kind not in "iu":
        raise DTypeError(
            f"{name} is {value.dtype}, of which JAX makes {array.dtype}: expected float32, or "
            'jax.config.update("jax_enable_x64", True)'
        )
    return array


def _is_real(jax: Any, array: Any) -> bool:
    return bool(jax.numpy.issubdtype(array.dtype, jax.numpy.floating))


def values(array: Any) -> Array:
    """An array's values: narrower ones in float32, integers in int64."""
    found = np.asarray(array)
    if found.dtype in REAL:
        return np.array(found, order="C")
    return found.astype(np.int64 if found.dtype.kind in "iu" else np.float32)

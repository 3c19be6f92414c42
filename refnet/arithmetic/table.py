"""What an arithmetic is: a table from operator name to the kernel that carries it out.

Every kernel stands behind the same door. It checks names, dtypes and shapes, and hands the kernel
read-only C-contiguous arrays in native byte order; what comes back must have the inferred shape. So a kernel
of somebody's own, put in place of one entry, meets clean inputs and is caught when it returns
something else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Never, ParamSpec, cast, overload

import numpy as np
from numpy.ma import MaskedArray

from refnet import memory, ops
from refnet.arrays import Array, at_the_door, stored_in
from refnet.cached import cached_property
from refnet.environment import in_default
from refnet.errors import (
    DTypeError,
    ShapeError,
    UnknownNameError,
    kind_of,
    require_callable,
    require_kind,
    require_known,
)
from refnet.op import InputGradients, Needs, Op
from refnet.ops import OPS
from refnet.shapes import Shape, size, text
from refnet.shown import Shown, ShownMapping, Table, as_html

P = ParamSpec("P")

# Elements of an output from which on its memory is asked for before a kernel allocates it.
LARGE = 1 << 26


@dataclass(frozen=True, repr=False)
class Kernel(Shown):
    """How one operator is carried out.

    Attributes
    ----------
    forward : ``(*arrays, **attrs) -> (y, context)``
        `attrs` are all of the operator's; `context` is whatever `backward` wants to know.
    backward : ``(dy, context, needs) -> gradients``
        For each input its gradient, or None; `needs` says for which inputs one is wanted: for the others it
        should be None, for whatever is computed there is lost.
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., InputGradients]

    def __post_init__(self) -> None:
        for way in ("forward", "backward"):
            require_callable(f"{way} of a Kernel", getattr(self, way))

    def _shown(self) -> Table:
        return Table(
            "kernel", ("", ""), [(way, _title(getattr(self, way))) for way in ("forward", "backward")]
        )

    def in_default_environment(self) -> Kernel:
        """Return this kernel, run in C's default floating-point environment, whatever its caller's is."""
        return Kernel(in_default(self.forward), in_default(self.backward))


class Context(NamedTuple):
    """What the door remembers of a forward call, around what the kernel does."""

    arithmetic: str
    op: str
    kernel: Any
    inputs: tuple[Shape, ...]
    output: Shape
    dtype: np.dtype[Any]

    @property
    def source(self) -> str:
        """What it is a context of: ``core conv3d``."""
        return f"{self.arithmetic} {self.op}"

    def __repr__(self) -> str:
        shapes = f"{' and '.join(map(text, self.inputs))} to {text(self.output)}"
        return f"<context of {self.source}, {shapes}, {self.dtype}>"

    def _repr_html_(self) -> str:
        rows = [*((x, text(shape)) for x, shape in zip(OPS[self.op].operands, self.inputs, strict=False))]
        rows += [("y", text(self.output)), ("dtype", str(self.dtype))]
        return as_html(Table(f"context of {self.source}", ("", ""), rows))


class Door(Generic[P], Shown):
    """A kernel behind its checks; called in the same way.

    Parameters
    ----------
    arithmetic : str
        Whose kernel it is, for messages.
    op : Op
    kernel : Kernel
    """

    def __init__(self, arithmetic: str, op: Op, kernel: Kernel):
        self._arithmetic, self._op, self._kernel = arithmetic, op, kernel
        # help(core.conv3d) shows how it is called, and the operator's definition.
        said = sys.modules[op.forward.__module__].__doc__ or ""
        self.__doc__ = f"{self._forms()}\n\n{said}"

    @cached_property
    def forward(self) -> Callable[P, tuple[Array, Context]]:
        """Compute the operator's output.

        It has the operator's signature: ``core.conv3d.forward(x, w, b=None, *, stride=(1, 1, 1), ...)``.
        Operands are all float32 or all float64, labels integers; of any memory layout and byte order, left
        as they are. y is of their dtype; float16 and bfloat16 are taken as float32, and so is y.

        Returns
        -------
        y : ndarray
        context : Context
            For `backward`.

        Raises
        ------
        UnknownNameError, ShapeError, DTypeError, ValueRangeError
            If the inputs do not fit the operator, or the kernel's output is not what it must be.
        TooLargeError
            If a large output would not fit into memory.
        """

        def forward(*operands: P.args, **attrs: P.kwargs) -> tuple[Array, Context]:
            return self._call(*operands, **attrs)

        forward.__signature__ = self._op.signature  # type: ignore[attr-defined]
        forward.__doc__ = (
            f"Compute {self._op.name}, in {self._arithmetic}: y, and a context for backward.\n\n"
            "    y is of the operands' dtype; float16 and bfloat16 are taken as float32, and so is y.\n\n"
            f"    {self._op.infer.__doc__}"
        )
        forward.__qualname__ = f"{self._op.name}.forward"
        return forward

    def _call(self, *operands: Any, **given: Any) -> tuple[Array, Context]:
        """What `forward` does."""
        arrays, attrs = self._op.call(operands, given)
        integer = [self._op.domain(i).integer for i in range(len(arrays))]
        clean = [
            at_the_door(f"{self._op.name} {self._op.operands[i]}", a, integer=integer[i])
            for i, a in enumerate(arrays)
        ]
        real = [a.dtype for i, a in enumerate(clean) if not integer[i]]
        if len(set(real)) > 1:
            found = ", ".join(stored_in(a) for i, a in enumerate(arrays) if not integer[i])
            raise DTypeError(f"{self._op.name} inputs have dtypes {found}: expected one dtype for all")
        shape = self._op.infer(*(a.shape for a in clean), **attrs)
        if self._op.check is not None:
            self._op.check(*clean, **attrs)
        if size(shape) > LARGE:
            memory.require(size(shape) * real[0].itemsize, f"the output of {self._op.name}, {text(shape)},")
        result = self._kernel.forward(*clean, **attrs)
        if not isinstance(result, tuple) or len(result) != 2:
            raise DTypeError(
                f"{self._arithmetic} {self._op.name} forward returned {kind_of(result)}: "
                "expected (y, context)"
            )
        y, context = result
        self._check("forward: y", y, shape, real[0])
        shapes = tuple(a.shape for a in clean)
        return y, Context(self._arithmetic, self._op.name, context, shapes, shape, real[0])

    def backward(self, dy: Array, context: Context, needs: Needs | None = None) -> InputGradients:
        """Compute the gradients of sum(dy * y) with respect to the inputs.

        Parameters
        ----------
        dy : ndarray
            The shape and dtype of y.
        context : Context
            From `forward`.
        needs : tuple of bool, optional
            For which inputs a gradient is wanted; all that have one by default.

        Returns
        -------
        tuple of (ndarray or None)
            One for each input; None where none was wanted, or there is none (labels, a stop).

        Raises
        ------
        ShapeError, DTypeError
            If dy is not of y's shape and dtype, the context is of another operator or arithmetic, or the
            kernel returns something else than the wanted gradients.
        """
        self._require_own(context)
        if needs is None:
            needs = (True,) * len(context.inputs)
        if len(needs) != len(context.inputs):
            raise ShapeError(
                f"{self._op.name} needs has {len(needs)} entries: expected {len(context.inputs)}, "
                "one for each input"
            )
        has_gradient = [self._op.domain(i).gradient for i in range(len(needs))]
        needs = tuple(need and has for need, has in zip(needs, has_gradient, strict=True))
        given, dy = dy, at_the_door(f"{self._op.name} dy", dy)
        if dy.shape != context.output or dy.dtype != context.dtype:
            raise ShapeError(
                f"{self._op.name} dy is {stored_in(given)} {text(dy.shape)}: "
                f"expected {context.dtype} {text(context.output)}, as y"
            )
        gradients = self._kernel.backward(dy, context.kernel, needs)
        if not isinstance(gradients, tuple | list) or len(gradients) != len(needs):
            found = f"{len(gradients)}" if isinstance(gradients, tuple | list) else kind_of(gradients)
            raise ShapeError(
                f"{self._arithmetic} {self._op.name} backward returned {found}: "
                f"expected {len(needs)} gradients, one or None for each input"
            )
        gradients = tuple(gradients)
        for i, (gradient, needed, shape) in enumerate(zip(gradients, needs, context.inputs, strict=True)):
            if needed:
                self._check(f"backward: gradient of {self._op.operands[i]}", gradient, shape, context.dtype)
        return gradients

    def _require_own(self, context: object) -> None:
        """Refuse what this entry's forward cannot have returned."""
        own = f"{self._arithmetic} {self._op.name}"
        if not isinstance(context, Context):
            found = kind_of(context)
        elif context.source != own:
            found = f"one of {context.op if context.op != self._op.name else context.source}"
        else:
            return
        expected = f"{self._owner}{self._op.name}.forward"
        raise DTypeError(f"{own} context is {found}: expected what {expected} returned")

    def _check(self, what: str, array: object, shape: Shape, dtype: np.dtype[Any]) -> None:
        if not isinstance(array, np.ndarray) or isinstance(array, MaskedArray):
            raise DTypeError(
                f"{self._arithmetic} {self._op.name} {what} is {kind_of(array)}: expected a NumPy array, "
                f"{dtype} {text(shape)}"
            )
        if array.shape != shape or array.dtype != dtype:
            raise ShapeError(
                f"{self._arithmetic} {self._op.name} {what} is {array.dtype} {text(array.shape)}: "
                f"expected {dtype} {text(shape)}"
            )

    @property
    def _owner(self) -> str:
        """What stands before the operator where it is called; nothing where that is no name of Python's."""
        return f"{self._arithmetic}." if self._arithmetic.isidentifier() else ""

    if not TYPE_CHECKING:  # which knows that it is no function

        def __call__(self, *operands: object, **attrs: object) -> Never:
            """Say how it is called."""
            form, _, _ = self._forms().partition(" -> ")
            raise DTypeError(f"{self._arithmetic} {self._op.name} is called itself: expected {form}")

    @property
    def title(self) -> str:
        """What it is: ``conv3d of core``."""
        return f"{self._op.name} of {self._arithmetic}"

    def _forms(self) -> str:
        """How its two functions are called."""
        op, owner = self._op, self._owner
        gradients = [f"d{x}" if op.domain(i).gradient else "None" for i, x in enumerate(op.operands)]
        returned = f"({gradients[0]},)" if len(gradients) == 1 else f"({', '.join(gradients)})"
        return (
            f"{owner}{op.name}.forward{op.form} -> (y, context)\n"
            f"{owner}{op.name}.backward(dy, context, needs=None) -> {returned}"
        )

    def __repr__(self) -> str:
        return f"<{self._forms()}>"

    def _shown(self) -> Table:
        forward, backward = self._forms().split("\n")
        forms = [("forward", forward), ("backward", backward)]
        return Table(self.title, ("", ""), [*forms, *self._kernel._shown().rows])


class Entry(Generic[P]):
    """An arithmetic's entry for an operator, whose operands and attributes are those of the definition.

    Parameters
    ----------
    definition : callable
        The operator's forward.
    """

    def __init__(self, definition: Callable[P, tuple[Array, Any]]):
        self.__doc__ = sys.modules[definition.__module__].__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, arithmetic: None, owner: type) -> Entry[P]: ...

    @overload
    def __get__(self, arithmetic: Arithmetic, owner: type) -> Door[P]: ...

    def __get__(self, arithmetic: Arithmetic | None, owner: type) -> Entry[P] | Door[P]:
        if arithmetic is None:
            return self
        try:
            return cast(Door[P], arithmetic[self._name])
        except UnknownNameError as error:
            raise AttributeError(str(error)) from None


class Arithmetic(ShownMapping[Door[...]]):
    """A table of kernels: ``arithmetic.conv3d.forward(...)`` or ``arithmetic["conv3d"]``.

    Parameters
    ----------
    name : str
    kernels : mapping of operator name to Kernel
    total : ``(arrays) -> array``, optional
        How two and more gradients of one value are added; by default one after the other, with the operator
        `add`.

    Raises
    ------
    UnknownNameError
        If a name is not an operator's, or an operator is asked for that this arithmetic lacks.
    """

    # What completion and type checkers find, each from its definition.
    add = Entry(ops.add.forward)
    affine = Entry(ops.affine.forward)
    average_pool3d = Entry(ops.average_pool3d.forward)
    batch_norm = Entry(ops.batch_norm.forward)
    batch_norm_training = Entry(ops.batch_norm_training.forward)
    batch_to_time = Entry(ops.batch_to_time.forward)
    channels_to_time = Entry(ops.channels_to_time.forward)
    conv3d = Entry(ops.conv3d.forward)
    cross_entropy = Entry(ops.cross_entropy.forward)
    dropout = Entry(ops.dropout.forward)
    global_average_pool = Entry(ops.global_average_pool.forward)
    linear = Entry(ops.linear.forward)
    max_pool3d = Entry(ops.max_pool3d.forward)
    relu = Entry(ops.relu.forward)
    roi_align = Entry(ops.roi_align.forward)
    running_mean = Entry(ops.running_mean.forward)
    running_variance = Entry(ops.running_variance.forward)
    slice_keyframe = Entry(ops.slice_keyframe.forward)
    softmax = Entry(ops.softmax.forward)
    stop_gradient = Entry(ops.stop_gradient.forward)
    time_to_batch = Entry(ops.time_to_batch.forward)
    time_to_channels = Entry(ops.time_to_channels.forward)
    upsample_nearest = Entry(ops.upsample_nearest.forward)

    def __init__(
        self,
        name: str,
        kernels: Mapping[str, Kernel],
        total: Callable[[Sequence[Array]], Array] | None = None,
    ):
        require_kind("kernels", kernels, Mapping, "of operators' names to kernels")
        self.name, self._total = name, total
        self._replaced: tuple[Arithmetic, dict[str, Kernel]] | None = None
        self.kernels = dict(kernels)
        for op in self.kernels:
            require_known("operator", op, OPS)
            if not isinstance(self.kernels[op], Kernel):
                found = kind_of(self.kernels[op])
                raise DTypeError(f"the {op} of {name} is {found}: expected Kernel(forward, backward)")
        self._doors: dict[str, Door[...]] = {
            op: Door(name, OPS[op], kernel) for op, kernel in self.kernels.items()
        }

    def __getitem__(self, op: str) -> Door[...]:
        require_known(f"operator of arithmetic {self.name}", op, self._doors)
        return self._doors[op]

    if not TYPE_CHECKING:  # which would take any name

        def __getattr__(self, op: str) -> Never:
            if op.startswith("_"):
                raise AttributeError(op)
            raise AttributeError(
                str(UnknownNameError(f"operator of arithmetic {self.name}", op, self._doors))
            )

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__()} - OPS.keys() | self._doors.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self._doors)

    def __len__(self) -> int:
        return len(self._doors)

    def __repr__(self) -> str:
        return f"<arithmetic {self.name}: {', '.join(self)}>"

    def _shown(self) -> Table:
        rows = [(op, f"{op}{OPS[op].form}") for op in self]
        return Table(f"arithmetic {self.name}", ("operator", "operands and attributes"), rows)

    def replace(self, **kernels: Kernel) -> Arithmetic:
        """Return this arithmetic with somebody else's kernels in place of some entries.

        Parameters
        ----------
        **kernels : Kernel
            By operator name.
        """
        name = f"{self.name} with {', '.join(kernels)} replaced"
        made = Arithmetic(name, self.kernels | kernels, None if "add" in kernels else self._total)
        made._replaced = self, kernels
        return made

    def _made(self) -> tuple[Callable[..., Arithmetic], tuple[Any, ...]]:
        """What makes this arithmetic again, and from what: for pickle, which knows functions by name."""
        if self._replaced is None:
            return Arithmetic, (self.name, self.kernels, self._total)
        return _replace, self._replaced

    def total(self, arrays: Sequence[Array]) -> Array:
        """Add up the gradients of one value; none of them is changed.

        Parameters
        ----------
        arrays : sequence of ndarray
            At least one, of one shape and dtype.

        Returns
        -------
        ndarray
        """
        if self._total is not None and len(arrays) > 1:
            return self._total(arrays)
        total = arrays[0]
        # The operator adds volumes; a matrix, a bias or a loss is one line of a volume.
        volume = total.shape if total.ndim == 5 else (1, 1, 1, 1, total.size)
        for array in arrays[1:]:
            summed, _ = self["add"].forward(total.reshape(volume), array.reshape(volume))
            total = summed.reshape(array.shape)
        return total


def _replace(arithmetic: Arithmetic, kernels: dict[str, Kernel]) -> Arithmetic:
    return arithmetic.replace(**kernels)


def _title(function: Callable[..., Any]) -> str:
    """What a function is called, and where it is from."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}".lstrip(".")

"""A problem: one call of an operator, measured forward and for its gradients."""

from dataclasses import dataclass
from inspect import signature

import numpy as np

from refnet.arrays import Array
from refnet.inputs.fill import uniform
from refnet.op import Case, Cost
from refnet.ops import OPS
from refnet.trace.explanation import useful_multiply_adds


@dataclass(frozen=True)
class Problem:
    """One call of an operator.

    Attributes
    ----------
    op : str
    case : Case
    """

    op: str
    case: Case

    @property
    def name(self) -> str:
        """The case's."""
        return self.case.name

    @property
    def compute_bound(self) -> bool:
        """Whether multiply-adds bound its time, and not memory: a convolution.

        Each gradient of such a one is measured on its own, against a GEMM, and compared exactly on whole
        numbers. What memory bounds is measured for all gradients at once, against a copy.
        """
        return OPS[self.op].family == "product" and OPS[self.op].window is not None

    @property
    def gradients(self) -> tuple[str, ...]:
        """A name for the gradient of each input, by what the definition calls the input: dx, dw."""
        inputs = list(signature(OPS[self.op].forward).parameters)[: len(self.case.shapes)]
        return tuple(f"d{name}" for name in inputs)

    @property
    def backward(self) -> dict[str, tuple[str, ...]]:
        """The gradients that each direction but forward computes; none where no input has one."""
        names = tuple(name for i, name in enumerate(self.gradients) if OPS[self.op].domain(i).gradient)
        if self.compute_bound:
            return {name: (name,) for name in names}
        return {"backward": names} if names else {}

    @property
    def directions(self) -> tuple[str, ...]:
        """What can be measured of it."""
        return "forward", *self.backward

    def arrays(self, dtype: str, whole: bool = False) -> tuple[list[Array], Array]:
        """Inputs and dy: U(-1, 1), or whole numbers from -2 to 2; restricted inputs as the operator says."""
        op, case = OPS[self.op], self.case

        def drawn(name: str, shape: tuple[int, ...]) -> Array:
            values = uniform(f"{name} of {self.name}", shape, 0)
            return np.rint(2 * values) if whole else values

        inputs = []
        for i, shape in enumerate(case.shapes):
            values, domain = drawn(f"input {i}", shape), op.domain(i)
            if domain.draw is not None:
                values = domain.draw(values, *case.shapes, **case.attrs)
            inputs.append(values if domain.integer else values.astype(dtype))
        return inputs, drawn("dy", op.infer(*case.shapes, **case.attrs)).astype(dtype)

    def cost(self, dtype: str) -> Cost:
        """The work of the call forward; a gradient of a product takes as much."""
        itemsize = np.dtype(dtype).itemsize
        return OPS[self.op].cost(*self.case.shapes, itemsize=itemsize, **self.case.attrs)

    @property
    def work(self) -> dict[str, int]:
        """The multiply-adds of the definition, and those of them that read no padding."""
        op, shapes, attrs = OPS[self.op], self.case.shapes, self.case.attrs
        return {
            "multiply_adds": op.cost(*shapes, itemsize=1, **attrs).multiply_adds,
            "useful_multiply_adds": useful_multiply_adds(op, *shapes, **attrs),
        }

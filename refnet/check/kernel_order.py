"""In which order a kernel adds up each element of its result, and whether each bit is that of this order.

The order is found at one element (`reveal`); then a result on drawn numbers is computed again along the tree
(`retrace`). Elements that differ are asked for their own order, and so on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from refnet.arithmetic import Arithmetic, reference
from refnet.arrays import Array, wide
from refnet.check.bounds import Claim
from refnet.check.precision import BFLOAT16, FLOAT32, FLOAT64, TF32, WAYS, Format, Way, below, format_of
from refnet.check.retrace import along
from refnet.check.reveal import Order, OrderError, reveal
from refnet.environment import errstate
from refnet.inputs.fill import uniform
from refnet.op import OUTPUT, Op

# Elements whose order is compared, and how many different orders are looked for.
ELEMENTS, ORDERS = 512, 4
# On how many of them it is tried in which formats a sum is made.
SAMPLE = 32


class Rounding(NamedTuple):
    """In which formats a sum of products is made.

    Attributes
    ----------
    operands : Format
    way : {"nearest", "away", "zero"}
        How operands are rounded to it.
    accumulate : Format
    cut : {"nearest", "zero"}
        How sums are rounded.
    scaled : {"", "divided", "times the reciprocal", "weighted"}
        What becomes of an average's sum; or that each term is a product with the reciprocal.
    """

    operands: Format
    way: Way
    accumulate: Format
    cut: Way
    scaled: str


@dataclass
class Ordered:
    """What was found of an array's order.

    Attributes
    ----------
    orders : list of Order
        The trees, in the order in which they were found.
    counts : list of int
        How many elements are, bit for bit, what the tree of that place makes of them.
    elements : int
        How many were compared.
    rounding : Rounding, optional
        Under which they are.
    claimed : bool
        Whether that is what was claimed.
    why : str
        Why there is no tree for the rest.
    left : tuple of int, optional
        An element that is not what its tree makes of it.
    """

    orders: list[Order] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    elements: int = 0
    rounding: Rounding | None = None
    claimed: bool = True
    why: str = ""
    left: tuple[int, ...] | None = None

    @property
    def complete(self) -> bool:
        """Whether every element is that of a tree."""
        return 0 < self.elements == sum(self.counts)

    @property
    def words(self) -> str:
        """The trees, and which share of elements has which."""
        said = []
        for order, count in zip(self.orders, self.counts, strict=True):
            where = "" if len(self.orders) == 1 else f" (of {count} elements)"
            said.append(f"{order.tree.words}{where}")
        return "; ".join(said)

    @property
    def said(self) -> str:
        """The trees, how products and sums are rounded, and how many elements are that."""
        if not self.orders or self.rounding is None:
            return self.words
        order, rounding = self.orders[0], self.rounding
        terms, fused = order.tree.count, len(order.fused)
        heads = sum(all(child < terms for child in children) for children in order.tree.nodes)
        products = "products rounded first" if not fused else f"{fused} of {terms} products not rounded first"
        if fused and terms - fused <= heads + 1:
            products = "fused multiply-adds"
        parts = ["" if rounding.scaled else products, f"sums in {rounding.accumulate.title}"]
        if rounding.scaled:
            parts.append(
                {"divided": "then divided", "weighted": "of terms times the reciprocal"}.get(
                    rounding.scaled, "then " + rounding.scaled
                )
            )
        how = ", ".join(filter(None, parts))
        return (
            f"{self.words}; {how}; all {self.elements} elements" if self.complete else f"{self.words}; {how}"
        )


def order_of(arithmetic: Arithmetic, op: Op, subject: int, claim: Claim, dtype: str, seed: int) -> Ordered:
    """Find the order of an array's sums, on the operator's problem for that, and compare every bit.

    Parameters
    ----------
    arithmetic : Arithmetic
        Whose operator it is.
    op : Op
        One that has `sums`: a product, or an average.
    subject : int
        OUTPUT for y; of a product, 0 for dx and 1 for dw.
    claim : Claim
    dtype : {"float32", "float64"}
        Of the arrays.
    seed : int

    Returns
    -------
    Ordered
    """
    sums = Sums(arithmetic, op, subject, dtype)
    places = sums.complete(np.random.default_rng(seed))
    pairs = [sums.pairs(place) for place in places]
    operands = [wide(values) for values in sums.drawn(seed)]
    found = sums.results(*operands)
    values = np.array([found[place] for place in places])
    left = np.stack([operands[0].reshape(-1)[one] for one, _ in pairs], axis=1)
    right = (
        np.ones_like(left)
        if sums.average
        else np.stack([operands[1].reshape(-1)[o] for _, o in pairs], axis=1)
    )
    ordered, open_ = Ordered(elements=len(places)), np.ones(len(places), bool)
    while open_.any() and len(ordered.orders) < ORDERS:
        first = int(open_.argmax())
        try:
            element = partial(sums.one, places[first], pairs[first])
            order = reveal(element, len(left), accumulate=format_of(claim.accumulate), seed=seed)
        except OrderError as error:
            ordered.why = str(error)
            break
        some = np.flatnonzero(open_)
        ours, rounding, claimed = _best(
            order, left[:, some], right[:, some], values[some], claim, dtype, sums.average
        )
        same = some[ours == values[some]]
        if first not in same:
            ordered.why = (
                "its results are not those of the tree that its masks show, in any format and rounding"
            )
            ordered.left = places[first]
            if not ordered.orders:
                ordered.orders, ordered.counts = [order], [len(same)]
            break
        ordered.orders.append(order)
        ordered.counts.append(len(same))
        ordered.rounding, ordered.claimed = rounding, ordered.claimed and claimed
        open_[same] = False
    if open_.any() and not ordered.why:
        ordered.why = f"there are more than {ORDERS} orders"
        ordered.left = places[int(open_.argmax())]
    return ordered


def _best(
    order: Order, left: Array, right: Array, values: Array, claim: Claim, dtype: str, average: bool
) -> tuple[Array, Rounding, bool]:
    """What the tree makes of the operands, under the rounding by which most elements are equal."""
    some = slice(0, SAMPLE)
    best: tuple[int, Rounding, bool] | None = None
    store = format_of(claim.store)
    for rounding, claimed in _roundings(claim, dtype, average, order.tree.fan_in > 2):
        made = _made(order, left[:, some], right[:, some], rounding, store)
        equal = int(np.count_nonzero(made == values[some]))
        if best is None or equal > best[0]:
            best = equal, rounding, claimed
        if equal == len(made):
            break
    assert best is not None, "something is claimed"
    _, rounding, claimed = best
    return _made(order, left, right, rounding, store), rounding, claimed


def _roundings(claim: Claim, dtype: str, average: bool, at_once: bool) -> Iterator[tuple[Rounding, bool]]:
    """What is claimed, then what else may be."""
    own = format_of(dtype)
    claimed = own if claim.operands is None else format_of(claim.operands)
    ways: tuple[Way, ...] = tuple(WAYS)
    if claim.operand_rounding is not None:
        ways = tuple(way for way in WAYS if way == claim.operand_rounding)
    wider = [form for form in (FLOAT32, FLOAT64) if form.digits > format_of(claim.accumulate).digits]
    cuts: tuple[Way, ...] = ("nearest", "zero") if at_once else ("nearest",)
    scales = ("divided", "times the reciprocal", "weighted") if average else ("",)
    sums = [*product([format_of(claim.accumulate), *wider], cuts, scales)]
    for way in ways if claimed is not own else ways[:1]:
        for accumulate, cut, scaled in sums:
            yield Rounding(claimed, way, accumulate, cut, scaled), True
    for operands in (own, *below(dtype)):
        some: tuple[Way, ...] = ("nearest",) if operands is own else tuple(WAYS)
        for way in some:
            if operands is not claimed or (way not in ways and operands is not own):
                for accumulate, cut, scaled in sums:
                    yield Rounding(operands, way, accumulate, cut, scaled), False


def _made(order: Order, left: Array, right: Array, rounding: Rounding, store: Format) -> Array:
    operands, way, accumulate, cut, scaled = rounding
    count = len(left)
    if scaled == "weighted":
        right = np.full_like(left, accumulate.round(np.array(1 / count)))
    last = accumulate if scaled in ("divided", "times the reciprocal") else store
    with errstate(all="ignore"):
        total = along(
            order.tree,
            operands.round(left, way),
            operands.round(right, way),
            fused=order.fused,
            accumulate=accumulate,
            store=last,
            way=cut,
        )
    if scaled == "divided":
        return store.round(accumulate.round(total / count))
    if scaled == "times the reciprocal":
        return store.round(accumulate.round(total * accumulate.round(np.array(1 / count))))
    return total


class Sums:
    """The sums of which y or a gradient consists, of an operator's problem for that.

    Parameters
    ----------
    arithmetic : Arithmetic
    op : Op
    subject : int
    dtype : str

    Attributes
    ----------
    average : bool
        Whether they are averages of x; else they are sums of products.
    """

    def __init__(self, arithmetic: Arithmetic, op: Op, subject: int, dtype: str):
        assert op.sums is not None, "there is a problem for it"
        self._door, self._definition = arithmetic[op.name], reference[op.name]
        self._op, self._subject, self._dtype, self._case = op, subject, dtype, op.sums
        self.average = op.family != "product"
        y = op.output_shape(op.sums.shapes, op.sums.attrs)
        x, w = op.sums.shapes[0], op.sums.shapes[-1]
        # The operand by whose indices terms are numbered, and the other one.
        self._shapes = {OUTPUT: (w, x), 0: (w, y), 1: (y, x)}[subject]
        self._result = {OUTPUT: y, 0: x, 1: w}[subject]

    def drawn(self, seed: int) -> list[Array]:
        """Values for both operands: a third has 12 bits, a third 9, ties of the formats of operands."""
        drawn = []
        for what, shape in zip(("left", "right"), self._shapes, strict=True):
            values = uniform(f"{what} of sums of {self._op.name} {self._subject}", shape, seed).reshape(-1)
            for start, form in ((1, TF32), (2, BFLOAT16)):
                longer = form._replace(digits=form.digits + 1)
                values[start::3] = longer.round(wide(values[start::3]))
            drawn.append(values.reshape(shape).astype(self._dtype))
        return drawn

    def complete(self, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """Elements that are sums of the most terms, no padding among them: all, or drawn ones in order."""
        ones = [np.ones(shape) for shape in self._case.shapes]
        magnitude = self._op.magnitude(*ones, **self._case.attrs)
        if self._subject != OUTPUT:
            dy = np.ones(self._shapes[1 - self._subject])
            needs = (self._subject == 0, self._subject == 1)
            of_gradient = self._op.gradient_magnitude(dy, *ones, needs=needs, **self._case.attrs)[
                self._subject
            ]
            assert of_gradient is not None
            magnitude = of_gradient
        terms = np.broadcast_to(magnitude.terms, self._result)
        flat = np.flatnonzero(terms == terms.max())
        if len(flat) > ELEMENTS:
            inner = rng.choice(flat[1:-1], ELEMENTS - 2, replace=False)
            flat = np.sort(np.concatenate([flat[:1], inner, flat[-1:]]))
        return [tuple(int(i) for i in np.unravel_index(place, self._result)) for place in flat]

    def pairs(self, place: tuple[int, ...]) -> tuple[Array, Array]:
        """Which values of the one operand an element's terms have, in order, and which of the other one.

        The definition is asked: of values that are their own numbers, each is handed on to where it belongs.
        """
        at = np.zeros(self._result)
        at[place] = 1
        x, w = self._case.shapes[0], self._case.shapes[-1]
        if self._subject == OUTPUT:
            ids = np.arange(1.0, prod(x) + 1).reshape(x)
            arrays = [ids] if self.average else [ids, np.zeros(w)]
            needs = (True,) if self.average else (False, True)
            context = self._definition.forward(*arrays, **self._case.attrs)[1]
            *_, found = self._definition.backward(at, context, needs)
            assert found is not None
            found = found.reshape(-1)
            left = np.flatnonzero(found)
            return left, left if self.average else found[left].astype(np.int64) - 1
        ids = np.arange(1.0, prod(w if self._subject == 0 else x) + 1)
        arrays = [at, ids.reshape(w)] if self._subject == 0 else [ids.reshape(x), at]
        found = self._definition.forward(*arrays, **self._case.attrs)[0].reshape(-1)
        of_dy = np.flatnonzero(found)
        other = found[of_dy].astype(np.int64) - 1
        if self._subject == 1:
            return of_dy, other
        order = np.argsort(other)
        return other[order], of_dy[order]

    def results(self, left: Array, right: Array) -> Array:
        """What the kernel makes of both operands, in float64; masks may overflow in it."""
        with errstate(all="ignore"):
            return self._results(left, right)

    def _results(self, left: Array, right: Array) -> Array:
        left, right = left.astype(self._dtype), right.astype(self._dtype)
        attrs = self._case.attrs
        if self._subject == OUTPUT:
            return wide(self._door.forward(*([left] if self.average else [right, left]), **attrs)[0])
        x = right if self._subject == 1 else np.zeros(self._case.shapes[0], self._dtype)
        w = left if self._subject == 0 else np.zeros(self._case.shapes[-1], self._dtype)
        dy = right if self._subject == 0 else left
        needs = (self._subject == 0, self._subject == 1)
        gradient = self._door.backward(dy, self._door.forward(x, w, **attrs)[1], needs)[self._subject]
        assert gradient is not None, "the door has refused it"
        return wide(gradient)

    def one(self, place: tuple[int, ...], pairs: tuple[Array, Array], left: Array, right: Array) -> float:
        """An element, where its terms have these operands and all else is zero; of an average, the sum."""
        operands = [np.zeros(shape) for shape in self._shapes]
        values = (left * right, right) if self.average else (left, right)
        for operand, indices, value in zip(operands, pairs, values, strict=True):
            operand.reshape(-1)[indices] = value
        found = float(self.results(*operands)[place])
        return float(np.rint(found * len(left) * 2.0**24) / 2.0**24) if self.average else found

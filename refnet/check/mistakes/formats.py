"""What explains much: a factor; operands, results and sums in formats of lower precision."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from refnet.arrays import Array
from refnet.check.mistakes.hypothesis import Hypothesis, of_right, times
from refnet.check.precision import BFLOAT16, FLOAT16, FLOAT32, TF32, WAYS, Format, Way, below
from refnet.check.replay import Call
from refnet.environment import errstate

TINY = np.finfo(np.float64).tiny
# Elements from which on the typical size of errors says something.
ENOUGH = 32


def scale(call: Call) -> Iterator[Hypothesis]:
    """The one factor that fits best, weighted by the bounds."""
    sizes = call.sizes
    weight = np.where(sizes > 0, 1 / sizes, 0.0)
    f, r = call.found * weight, call.right * weight
    if np.count_nonzero(r) < 2:
        return
    factor = float((f * r).sum() / np.square(r).sum())
    by = factor - 1
    said = f"is {factor:.6g} times what it should be"
    if abs(by) < 0.5:
        said = f"has all elements {'larger' if by > 0 else 'smaller'} by {abs(by):.1e} relative"
    yield Hypothesis("scaled", said, times(factor))


def operands(call: Call) -> Iterator[Hypothesis]:
    """Operands rounded to a format of lower precision, all or one, and the way that fits."""
    names = [name for name, a in call.arrays.items() if a.dtype == np.float64] + ["dy"] * call.has("dy")
    if call.has("x", "w"):
        # Of a product, what is multiplied: a bias is added in the format of the sums.
        names = [name for name in ("x", "w", "dy") if call.has(name) and name != call.subject]
    for form in below(call.found.dtype):
        for chosen in [names, *([name] for name in names if len(names) > 1)]:
            for way, how in WAYS.items():
                rounded = partial(with_operands, chosen, form, way)
                which = "operands" if chosen is names else chosen[0]
                yield Hypothesis(
                    f"{which} {form.name} {way}",
                    f"is that of {which} rounded to {form.title}, {how}",
                    rounded,
                )
                if way == "nearest" and chosen is names and form is not TF32 and holds(form, call.found):
                    yield Hypothesis(
                        f"all {form.name}",
                        f"is that of operands and a result rounded to {form.name}",
                        rounded,
                        stored=form,
                    )


def with_operands(names: list[str], form: Format, way: Way, call: Call) -> Array:
    """The result for operands rounded to a format."""
    return call.of({name: form.round(call[name], way) for name in names})


def stored(call: Call) -> Iterator[Hypothesis]:
    """The result rounded to a format of lower precision, in which results are stored: TF32 is not."""
    for form in below(call.found.dtype):
        if form is not TF32 and holds(form, call.found):
            yield Hypothesis(
                f"result {form.name}",
                f"is rounded to {form.name}",
                partial(stored_in, form),
                sizes=of_right,
                stored=form,
            )


def stored_in(form: Format, call: Call) -> Array:
    """The right result, rounded to a format."""
    return form.round(call.right, "nearest")


def holds(form: Format, values: Array) -> bool:
    """Whether every value is one of a format's."""
    return bool(np.array_equal(form.round(values, "nearest"), values))


def accumulated(call: Call) -> Iterator[Hypothesis]:
    """Sums in a format of lower precision: errors all over, as large as such sums make them.

    Their order is unknown, so nothing is replayed. Of a sum of K terms, errors are within K u of the sum
    of magnitudes, and most are above u / 64 of it. They are no offset and no factor.
    """
    if call.judge.op.family not in ("product", "norm", "pooling", "activation", "other"):
        return
    terms, errors = call.terms, call.found - call.right
    size = np.linalg.norm(errors)
    offset = np.abs(errors.sum()) / np.sqrt(errors.size)
    factor = np.abs((errors * call.right).sum()) / max(np.linalg.norm(call.right), TINY)
    if not max(offset, factor) <= size / 2:
        return
    with errstate(invalid="ignore", divide="ignore"):
        off = np.abs(errors) / call.sizes
    off = off[np.isfinite(off)]
    for form in (FLOAT32, FLOAT16, BFLOAT16):
        if form not in below(call.found.dtype) or terms * form.unit > 0.25 or off.size < ENOUGH:
            continue
        if form.unit / 64 <= np.median(off) <= np.sqrt(terms) * form.unit and off.max() <= terms * form.unit:
            yield Hypothesis(
                f"sums {form.name}",
                f"has errors as large as those of sums in {form.name}",
                lambda call: call.found.astype(np.float64),
                sizes=of_right,
            )
            return

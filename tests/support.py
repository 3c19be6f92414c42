"""What several test modules share: peers, layouts, values for an operator's cases, pages, comparisons."""

import json
import os
import re
from html.parser import HTMLParser
from importlib import import_module

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import refnet
from refnet.arithmetic import ARITHMETICS, core, reference
from refnet.ops import OPS
from refnet.render import verdict_page
from refnet.shapes import size

LAYOUTS = {
    "C": lambda a: a.copy(),
    "Fortran": lambda a: np.asfortranarray(a),
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.flip(np.ascontiguousarray(np.flip(a))),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}
CASES = [pytest.param(op, case, id=f"{op.name}: {case.name}") for op in OPS.values() for case in op.cases]
every_case = pytest.mark.parametrize(("op", "case"), CASES)
every_arithmetic = pytest.mark.parametrize("arithmetic", ARITHMETICS.values(), ids=ARITHMETICS)
# Of what is infinite or NaN, which exact arithmetic refuses, or of another definition than its steps.
of_formulas = pytest.mark.parametrize("arithmetic", (reference, core), ids=("reference", "core"))
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def peer(name):
    """Import a package to compare with; where CI promises it, its absence is an error."""
    try:
        return import_module(name)
    except ImportError:
        if os.environ.get("REFNET_REQUIRE_PEERS"):
            raise
        pytest.skip(f"{name} is not installed; REFNET_REQUIRE_PEERS=1 makes that an error")


def fails(result, *words):
    """Assert that a command ended with exit code 2 and one line, which holds these words."""
    code, out, err = result
    assert code == 2 and out == ""
    assert err.startswith("refnet: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err


def edit(path, change):
    """Change the manifest of a bundle."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def integers(op, case, seed=0):
    """Distinct values 4 apart and never 0, so that a step of 1 changes no sign and no winner."""
    rng = np.random.default_rng(seed)
    arrays = []
    for i, shape in enumerate(case.shapes):
        n = int(np.prod(shape))
        values = 4 * (rng.permutation(n) - n // 2) + 2
        free = values.reshape(shape).astype("float64") / (n if op.smooth else 1)
        arrays.append(legal(op, case, i, free, rng))
    return arrays


def reals(op, case, dtype="float64", seed=0):
    """Normal values, or what an input may hold."""
    rng = np.random.default_rng(seed)
    free = [rng.standard_normal(shape).astype(dtype) for shape in case.shapes]
    return [legal(op, case, i, a, rng) for i, a in enumerate(free)]


def legal(op, case, i, free, rng):
    """What an input may hold, where that is not just any number."""
    draw = op.domain(i).draw
    if draw is None:
        return free
    drawn = draw(rng.uniform(-1, 1, free.shape), *case.shapes, **case.attrs)
    return drawn if drawn.dtype == np.int64 else drawn.astype(free.dtype)


def whole_numbers(net, seed=0):
    """Inputs and parameters with which a net that does not divide is exact: nothing is ever rounded.

    Two weights of a filter are 1 or -1, the others 0, so that values grow slowly with depth.
    """
    rng = np.random.default_rng(seed)
    given = {name: rng.integers(-4, 5, shape).astype("float64") for name, shape in net.inputs.items()}
    for name, shape in net.params.items():
        given[name] = rng.choice([-1.0, 1.0], shape)
        if len(shape) > 1:
            rows = given[name].reshape(shape[0], -1)
            kept = rng.random(rows.shape).argsort(axis=1)[:, :2]
            mask = np.zeros(rows.shape)
            np.put_along_axis(mask, kept, 1, axis=1)
            rows *= mask
    return given


def shifted_sums(x, w, dy, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1), groups=1):
    """(y, dx, dw) of a convolution of whole numbers, int64 or Python's: x padded, and sliced for each tap."""
    inner = tuple(slice(p, p + n) for p, n in zip(pad, x.shape[2:], strict=True))
    padded = np.zeros((*x.shape[:2], *(n + 2 * p for p, n in zip(pad, x.shape[2:], strict=True))), x.dtype)
    padded[:, :, *inner] = x
    y, dx, dw = (np.zeros(shape, x.dtype) for shape in (dy.shape, padded.shape, w.shape))
    filters, depth = len(w) // groups, w.shape[1]
    for tap in np.ndindex(*w.shape[2:]):
        box = tuple(
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip(tap, dilation, stride, dy.shape[2:], strict=True)
        )
        for g in range(groups):
            rows, channels = slice(g * filters, (g + 1) * filters), slice(g * depth, (g + 1) * depth)
            patch, weights = padded[:, channels][:, :, *box], w[rows][:, :, *tap]
            y[:, rows] += np.tensordot(weights, patch, (1, 1)).swapaxes(0, 1)
            dx[:, channels][:, :, *box] += np.tensordot(weights, dy[:, rows], (0, 1)).swapaxes(0, 1)
            dw[rows][:, :, *tap] = np.tensordot(dy[:, rows], patch, ((0, 2, 3, 4), (0, 2, 3, 4)))
    return y, dx[:, :, *inner], dw


def assert_same_bits(kernel, arrays, attrs):
    """Assert that the number of threads changes no bit of y and the gradients."""
    bits = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            y, context = kernel.forward(*arrays, **attrs)
            dy = np.asarray(np.random.default_rng(8).standard_normal(y.shape)).astype(y.dtype)
            gradients = kernel.backward(dy, context)
            bits.append([a.tobytes() for a in (y, *gradients) if a is not None])
    assert bits[0] == bits[1] == bits[2]


# Pages.

VOID = {"meta", "input", "br"}
OMITTED = {"tr", "td", "th", "li", "dt", "dd", "p"}


class Page(HTMLParser):
    """Tags closed in order, identifiers, links, text, and what would be loaded from elsewhere."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.links, self.summaries, self.loaded = [], set(), [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "id" in found:
            assert found["id"] not in self.ids
            self.ids.add(found["id"])
        if tag in ("a", "use"):
            self.links.append(found["href"])
        self.loaded += [v for k, v in attributes if k in ("src", "srcset", "data", "poster", "action")]
        self.loaded += [v for k, v in attributes if k == "href" and not v.startswith("#")]
        self.loaded += [tag] * (tag in ("link", "iframe", "object", "embed", "img"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        while self.open[-1] != tag and self.open[-1] in OMITTED:
            self.open.pop()
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if self.open[-2:] == ["span", "b"]:
            self.summaries.append(data)


def page_of_verdicts(report, net=None, folded=()):
    """A report's page; nothing is loaded, each link leads somewhere, and each array has a place."""
    html = verdict_page.html(report, net, folded)
    parsed = Page(html)
    assert parsed.loaded == [] and not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert all(link[0] == "#" and link[1:] in parsed.ids for link in parsed.links)
    assert {re.sub("[^A-Za-z0-9_.:/-]", "-", name) or "-" for name in report.verdicts} <= parsed.ids
    assert html == verdict_page.html(report, net, folded)
    return html


# Comparisons. A bound is derived from the number of terms n and the unit roundoff u, and says how.


def assert_within(ours, theirs, bound, what="", *, mostly_zero=False):
    """Assert |ours - theirs| <= bound, element by element, so that NaN fails.

    A comparison of zeros says nothing: at least half of theirs must differ from 0. Of what a rectifier, a
    mask or padding leaves, which the caller states as `mostly_zero`, at least one value must.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, not {theirs.shape}"
    nonzero = np.count_nonzero(theirs)
    assert nonzero >= (1 if mostly_zero else theirs.size / 2), f"{what}: {nonzero} of {theirs.size} are not 0"
    off = np.abs(ours - theirs)
    assert (off <= bound).all(), f"{what}: off by up to {off.max()}, of {np.abs(theirs).max()}"


def assert_all_within(ours, theirs, bound, *, mostly_zero=False):
    """Assert that each of their blobs or gradients is met within `bound` of its own largest magnitude.

    Rectifiers and padding leave many zeros in a net, but nowhere only zeros, and at least half of what is
    compared must not be mostly zeros, unless the caller states that it is.
    """
    assert ours.keys() == theirs.keys()
    full = sum(np.count_nonzero(expected) >= expected.size / 2 for expected in theirs.values())
    assert mostly_zero or full >= len(theirs) / 2, f"only {full} of {len(theirs)} are not mostly zeros"
    for name, expected in theirs.items():
        assert_within(ours[name], expected, bound * np.abs(expected).max(), name, mostly_zero=True)


def assert_both_within(ours, theirs, bound, what=""):
    """Assert that two values can each be within the bound of an exact one; without terms, both are 0."""
    ours, theirs, bound = np.asarray(ours), np.asarray(theirs), np.broadcast_to(bound, np.shape(theirs))
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, not {theirs.shape}"
    has_terms = bound != 0
    assert not ours[~has_terms].any() and not theirs[~has_terms].any(), f"{what}: a sum without terms"
    if has_terms.any():
        assert_within(ours[has_terms], theirs[has_terms], 2 * bound[has_terms], what)


def unit(dtype):
    """The unit roundoff u: half the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps) / 2


def rounding_bound(op, arrays, attrs, dtype="float64"):
    """n u sum |terms|: how far an element of y, of n terms added in any order, is from the exact one.

    Jeannerod and Rump (2013), for sums; what is no sum states n and its terms likewise (`Op.magnitude`).
    The bound itself is evaluated in float64, with an error of at most n 2**-53 of it.
    """
    wide = [a if a.dtype == np.int64 else a.astype("float64") for a in arrays]
    sum_abs, terms = op.magnitude(*wide, **attrs)
    return terms * unit(dtype) * sum_abs * (1 + terms * unit("float64"))


def gradient_bounds(op, arrays, attrs, dy):
    """For each input, how far an element of its gradient is from the exact one in float64: n u sum |J dy|.

    The gradient is a sum over the outputs, of dy times an entry of the Jacobian J, which the definition
    computes column by column. An entry of J is made, to first order, of no more terms than there are
    values; so n is the number of all values, of inputs and output. None where there is no gradient.
    """
    _, context = op.forward(*arrays, **attrs)
    needs = tuple(op.domain(i).gradient for i in range(len(arrays)))
    n = dy.size + sum(a.size for a in arrays)
    sums = [np.zeros(a.shape) if need else None for a, need in zip(arrays, needs, strict=True)]
    for o in np.ndindex(dy.shape):
        one = np.zeros(dy.shape)
        one[o] = dy[o]
        for total, gradient in zip(sums, op.backward(one, context, needs), strict=True):
            if total is not None:
                total += np.abs(gradient)
    return [None if total is None else n * unit("float64") * total for total in sums]


def assert_agree(op, case, arrays, dy, ours, theirs):
    """Assert that y and the gradients of whole numbers are equal; where the operator divides, to rounding."""
    assert [a is None for a in ours] == [a is None for a in theirs]
    bounds = [None] * len(ours)
    if op.divides:
        bounds = [rounding_bound(op, arrays, case.attrs), *gradient_bounds(op, arrays, case.attrs, dy)]
    for mine, other, bound in zip(ours, theirs, bounds, strict=True):
        if bound is not None:
            assert_both_within(mine, other, bound, case.name)
        elif mine is not None:
            assert np.array_equal(mine, other), case.name


def run_bound(net, *, backward=False):
    """How far apart two float64 runs of a net are, relative to a blob's largest magnitude: a model.

    Bounds for the worst case say nothing after a few layers. The model: roundings are independent and of
    mean zero, so a sum of n terms errs by sqrt(n) u of the largest magnitude (Higham and Mary, 2019);
    layers hand on errors as they do values, neither amplified nor damped; so those of all nodes add up like
    standard deviations. No element of T is off by more than sqrt(2 ln(2 T / delta)) of these, with a
    probability of 1 - delta, delta = 1e-6; and two runs err. Backward errs by the sums of its gradients too:
    each has as many terms as there are multiply-adds for one of its elements.
    """
    terms = elements = 0.0
    for node in net.nodes:
        shapes = [net.shape(name) for name in node.inputs]
        work = OPS[node.op].cost(*shapes, itemsize=8, **node.attrs).multiply_adds
        for shape in (node.shape, *(shapes if backward else ())):
            terms += 1 + work / size(shape)
            elements += size(shape)
    return np.sqrt(2 * terms) * np.sqrt(2 * np.log(2e6 * elements)) * unit("float64")


def carried_error(op, arrays, errors, attrs):
    """How far an element of y can be off, beside its own rounding, if each input may be off by so much.

    For operators whose sum |terms| is affine in the inputs that are off, or a maximum of such.
    """
    off = [bool(np.any(error)) for error in errors]
    largest = max(np.max(error) for error in errors)

    def sum_abs(scale):
        at = [e * scale if is_off else a for a, e, is_off in zip(arrays, errors, off, strict=True)]
        return op.magnitude(*at, **attrs).sum_abs

    # In units of the largest, or they would drown in the other terms.
    return (sum_abs(1 / largest) - sum_abs(0)) * largest if any(off) else 0.0


def amplification(run, gradients, output_gradients):
    """By how much a net amplifies errors, at least 1: what it makes of a small one in all that it is given.

    `run_bound` supposes that layers do not; batch norm in training, which divides by the deviation of what it
    is given, does.
    """
    rng, small = np.random.default_rng(0), 2.0**-26  # as far from rounding as from values
    moved = {
        name: value if value.dtype == np.int64 else value * (1 + small * rng.choice([-1, 1], value.shape))
        for name, value in run.given.items()
    }
    other = refnet.forward(run.net, moved)
    changed = other.blobs | (dict(refnet.backward(other, output_gradients)) if output_gradients else {})
    largest = max(
        np.abs(changed[name] - value).max() / np.abs(value).max()
        for name, value in (run.blobs | dict(gradients)).items()
        if value.any()
    )
    return max(1, largest / small)

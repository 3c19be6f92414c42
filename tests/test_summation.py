"""Summation trees: what they are called, whether a planted one is found, what its sums are, bit for bit."""

from fractions import Fraction

import numpy as np
import pytest
from support import peer

from refnet.check.precision import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TF32, format_of
from refnet.check.retrace import along
from refnet.check.reveal import OrderError, reveal, same_order
from refnet.check.summation import Tree, chain, folded, pairwise
from refnet.errors import ValueRangeError

FORMS = [FLOAT64, FLOAT32, FLOAT16, BFLOAT16]


def rounded(value, form):
    """A Fraction, rounded to nearest, ties to even: by the definition."""
    if value == 0:
        return value
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    last = Fraction(2) ** max(exponent - form.digits + 1, form.quantum)
    return round(value / last) * last


def lanes(count, number):
    """Chains of every nth term, added pairwise."""
    sets = []
    for lane in range(number):
        terms = range(lane, count, number)
        sets += [frozenset(terms[:n]) for n in range(2, len(terms) + 1)]
    sets += [
        frozenset(term for part in members for term in range(part, count, number))
        for members in map(sorted, pairwise(number).terms)
    ]
    return Tree.of_terms(count, sets)


def chains(count, size):
    """Chains of neighbours, added in order."""
    sets = [frozenset(range(size * (stop // size), stop)) for stop in range(2, count + 1) if stop % size > 1]
    sets += [frozenset(range(start, start + size)) for start in range(0, count - size + 1, size)]
    sets += [frozenset(range(min(stop, count))) for stop in range(2 * size, count + size, size)]
    return Tree.of_terms(count, sets)


def at_once(count, size):
    """`size` terms with what is added so far, all at once."""
    return Tree.of_terms(count, (frozenset(range(stop)) for stop in range(size, count + 1, size)))


def shuffled(tree, seed=0):
    """The same tree of other terms."""
    place = np.random.default_rng(seed).permutation(tree.count).tolist()
    return Tree.of_terms(tree.count, (frozenset(place[t] for t in terms) for terms in tree.terms))


TREES = {
    "2 terms": chain(range(2)),
    "3 terms in order": chain(range(3)),
    "100 terms in order": chain(range(100)),
    "100 terms backwards": chain(range(100)[::-1]),
    "216 terms pairwise": pairwise(216),
    "64 terms half upon half": folded(64),
    "432 terms in strides of 27": chain(sorted(range(432), key=lambda term: (term % 27, term))),
    "150 terms one by one in another order": chain(np.random.default_rng(0).permutation(150).tolist()),
    "37 terms pairwise": pairwise(37, powers=True),
    "8 lanes of 32 terms in order, added pairwise": lanes(256, 8),
    "16 lanes of 8 terms in order or one less, added pairwise": lanes(124, 16),
    "2 blocks of 256 terms in order, the last of 176, added to each other": chains(432, 256),
    "5 blocks of 20 terms in order, the last of 7, added in order": chains(87, 20),
    "32 terms at once": at_once(32, 32),
}
every_tree = pytest.mark.parametrize(
    "tree",
    [
        *TREES.values(),
        at_once(64, 4),
        shuffled(pairwise(60)),
        shuffled(lanes(96, 8)),
    ],
    ids=[*TREES, "4 with the sum", "shuffled pairwise", "shuffled lanes"],
)


def summed(tree, form, *, fused=False, store=None):
    """A sum along a tree, in Fractions that are rounded at each node."""

    def add(left, right):
        values = [Fraction(a) * Fraction(b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
        if not fused:
            values = [rounded(v, form) for v in values]
        for children in tree.nodes:
            values.append(rounded(sum(values[c] for c in children), form))
        return rounded(values[-1], store or form)

    return add


@pytest.mark.parametrize("words", TREES)
def test_a_tree_is_called_what_it_is(words):
    assert TREES[words].words == words


def test_a_tree_without_a_name_says_its_height():
    tree = shuffled(pairwise(64))
    assert tree.words == "64 terms in a tree of height 6"


def test_small_trees_are_written_out():
    assert str(chain(range(4))) == "((0+1)+2)+3"
    assert str(lanes(8, 4)) == "((0+4)+(1+5))+((2+6)+(3+7))"
    assert str(at_once(6, 3)) == "(0+1+2)+3+4+5"


@pytest.mark.parametrize("sets", [[{0, 1}, {1, 2}, {0, 1, 2}], [{0, 1}], []], ids=str)
def test_sets_that_are_no_tree_are_refused(sets):
    with pytest.raises(ValueRangeError):
        Tree.of_terms(3, [frozenset(one) for one in sets])


@every_tree
def test_a_tree_meets_where_it_says(tree):
    """By the definition: the smallest set of terms with both."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        i, j = rng.choice(tree.count, 2, replace=False).tolist()
        assert tree.meeting(i, j) == min(len(terms) for terms in tree.terms if {i, j} <= terms)


def aligned(tree):
    """A sum along a tree as a tensor core has it: bits below those of the largest number are dropped."""

    def add(left, right):
        values = (left * right).tolist()
        for children in tree.nodes:
            parts = [values[c] for c in children]
            last = 2.0 ** (np.frexp(max(map(abs, parts)))[1] - 24)
            values.append(sum(np.trunc(part / last) for part in parts) * last)
        return float(np.float32(values[-1]))

    return add


@every_tree
def test_a_planted_tree_is_found(tree):
    found = reveal(aligned(tree), tree.count, accumulate=FLOAT32)
    assert found.tree == tree
    assert not same_order(aligned(shuffled(tree, 1)), tree) or shuffled(tree, 1) == tree


def test_a_chain_takes_as_many_calls_as_it_has_terms():
    for order in (range(200), range(200)[::-1]):
        assert reveal(aligned(chain(order)), 200, accumulate=FLOAT32).calls < 4 * 200


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize(
    "tree", [chains(40, 16), lanes(40, 8), chain(range(40))], ids=["chains", "lanes", "chain"]
)
def test_multiply_adds_are_told_from_rounded_products(tree, form):
    """In a chain of multiply-adds, all products but the first are not rounded."""
    first = {min(terms) for terms in tree.terms if len(terms) == 2}
    for fused in frozenset(), frozenset(range(40)) - first:

        def add(left, right, fused=fused):
            left, right = left[:, None], right[:, None]
            return float(along(tree, left, right, fused=fused, accumulate=form, store=form)[0])

        with np.errstate(all="ignore"):
            found = reveal(add, 40, accumulate=form)
        assert found.tree == tree
        assert found.fused == fused


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("tree", [lanes(300, 4), chains(300, 100)], ids=["lanes", "chains"])
def test_a_tree_is_found_in_every_format(tree, dtype):
    """Of more terms than bfloat16 counts to."""
    form = format_of(dtype)
    dtype = peer("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype

    def add(left, right):
        values = list(left.astype(dtype) * right.astype(dtype))
        for one, other in tree.nodes:
            values.append(values[one] + values[other])
        return float(values[-1])

    with np.errstate(all="ignore"):
        assert reveal(add, 300, accumulate=form).tree == tree


def test_operands_in_float16_are_too_small_for_large_masks():
    tree = lanes(48, 8)

    def add(left, right):
        left, right = (FLOAT16.round(v)[:, None] for v in (left, right))
        return float(along(tree, left, right, fused=(), accumulate=FLOAT32, store=FLOAT32)[0])

    with np.errstate(all="ignore"):
        assert reveal(add, 48, accumulate=FLOAT32).tree == tree


def test_an_order_that_changes_is_none():
    rng = np.random.default_rng(0)

    def add(left, right):
        return np.cumsum(rng.permutation((left * right).astype("float32")))[-1]

    with pytest.raises(OrderError, match="differs from call to call"):
        reveal(add, 50, accumulate=FLOAT32)


def test_an_order_that_follows_signs_is_none():
    """Negative terms first: a mask meets its negative early, or late."""

    def add(left, right):
        terms = (left * right).astype("float32")
        return np.cumsum(np.concatenate([terms[terms < 0], terms[terms >= 0]]))[-1]

    with pytest.raises(OrderError, match="no order"):
        reveal(add, 50, accumulate=FLOAT32)


def test_an_exact_sum_has_no_order():
    def add(left, right):
        return float(np.float32(sum(Fraction(a) * Fraction(b) for a, b in zip(left, right, strict=True))))

    with pytest.raises(OrderError, match="no order"):
        reveal(add, 50, accumulate=FLOAT32)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("fused", [False, True], ids=["products rounded", "multiply-adds"])
@pytest.mark.parametrize(
    "tree", [chains(20, 8), lanes(24, 4), at_once(16, 4)], ids=["chains", "lanes", "at once"]
)
def test_sums_along_a_tree_are_those_of_fractions(tree, form, fused):
    """Each bit, of operands of the format and of sums that cancel."""
    rng = np.random.default_rng(0)
    left, right = (form.round(rng.standard_normal((tree.count, 50))) for _ in range(2))
    left[1], right[1] = -left[0], form.round(right[0] * (1 + 2.0**-6))
    terms = range(tree.count) if fused else ()
    found = along(tree, left, right, fused=terms, accumulate=form, store=form)
    add = summed(tree, form, fused=fused)
    assert [Fraction(value) for value in found.tolist()] == [add(left[:, i], right[:, i]) for i in range(50)]


def test_a_sum_is_stored_in_another_format():
    rng = np.random.default_rng(1)
    left, right = (TF32.round(rng.standard_normal((30, 40))) for _ in range(2))
    found = along(chain(range(30)), left, right, fused=(), accumulate=FLOAT32, store=BFLOAT16)
    add = summed(chain(range(30)), FLOAT32, store=BFLOAT16)
    assert [Fraction(value) for value in found.tolist()] == [add(left[:, i], right[:, i]) for i in range(40)]


def test_the_known_orders_of_numpy():
    """np.add.reduce adds eight lanes pairwise up to 128 terms; cumsum has one chain."""

    def reduced(left, right):
        return np.add.reduce((left * right).astype("float32"))

    def accumulated(left, right):
        return np.cumsum((left * right).astype("float32"))[-1]

    assert reveal(accumulated, 90, accumulate=FLOAT32).tree == chain(range(90))
    assert reveal(reduced, 128, accumulate=FLOAT32).tree == lanes(128, 8)

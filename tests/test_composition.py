"""The composition modulo a prime: right ones pass, and defects of the wiring are found and named."""

from dataclasses import replace

import bundles
import numpy as np
import pytest
from support import every_arithmetic, every_case, every_dtype

import refnet
from refnet import run as walks
from refnet.arithmetic import Arithmetic, Kernel, core, reference
from refnet.check import composition, frozen
from refnet.check.residues import LARGEST, SLACK, Residues, exact_up_to, is_prime, modulus
from refnet.errors import RefnetError
from refnet.op import Case
from refnet.ops import OPS
from refnet.run import Gradients

DTYPES = (np.dtype("float32"), np.dtype("float64"))
every_residue_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def ran(net, dtype="float64", arithmetic="core", seed=0):
    dtype = str(dtype)
    given = refnet.fill.params(net, seed, dtype=dtype) | refnet.fill.inputs(net, seed, dtype=dtype)
    return refnet.forward(net, given, arithmetic)


# Arithmetic modulo p.


def test_primes():
    sieve = [n for n in range(2000) if n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))]
    assert [n for n in range(2000) if is_prime(n)] == sieve
    # Carmichael numbers, a strong pseudoprime to the bases 2 to 7, Mersenne's.
    assert not any(is_prime(n) for n in (561, 1729, 41041, 3215031751, 2**67 - 1))
    assert is_prime(2**61 - 1) and is_prime(2**31 - 1)


@every_residue_dtype
@pytest.mark.parametrize("terms", [1, 2, 9, 25, 29, 125])
def test_sums_of_the_stated_number_of_terms_are_exact(dtype, terms):
    p = modulus(terms, dtype)
    assert is_prime(p) and p <= LARGEST[dtype.name]
    worst = np.full(terms, p // 2 + SLACK, dtype)
    total = worst.sum(dtype=dtype)
    assert int(total) == terms * (p // 2 + SLACK) <= exact_up_to(dtype)
    for sign in (1, -1):
        x = np.arange(-100, 101) + sign * int(total)
        found = Residues(p, dtype).total(x.astype(dtype))
        assert (np.abs(found) <= p // 2 + SLACK).all()
        assert all(int(a) % p == int(b) % p for a, b in zip(found, x, strict=True))


@every_residue_dtype
def test_residues_near_half_of_the_modulus_stay_small(dtype):
    p = modulus(25, dtype)
    halves = np.array([k * p + d for k in range(-12, 12) for d in (p // 2 - 1, p // 2, p // 2 + 1)])
    found = Residues(p, dtype).total(halves.astype(dtype))
    assert (np.abs(found) <= p // 2 + SLACK).all()
    assert all(int(a) % p == int(b) % p for a, b in zip(found, halves, strict=True))


@every_residue_dtype
def test_totals_products_and_digits_literally(dtype):
    p = modulus(25, dtype)
    residues, rng = Residues(p, dtype), np.random.default_rng(0)
    a, b = (residues.draw(rng, (3, 40_001)) for _ in range(2))
    a[:, :100], b[:, :100] = p // 2 + SLACK, -(p // 2 + SLACK)
    assert abs(float(np.mean(a[:, 100:] / p))) < 0.01 and np.ptp(a) > 0.99 * p
    whole = [(int(x), int(y)) for x, y in zip(a.flat, b.flat, strict=True)]
    assert residues.dot(a, b) == sum(x * y for x, y in whole) % p
    assert [int(x) % p for x in residues.total(a, b, a).flat] == [(2 * x + y) % p for x, y in whole]
    for terms in (1, 1000, 100_352, 2**20):
        parts = list(residues.digits(a, terms))
        assert all(np.abs(digit).max() * terms <= exact_up_to(dtype) for _, digit in parts)
        back = [
            sum(unit * int(x) for (unit, _), x in zip(parts, column, strict=True))
            for column in zip(*(digit.flat for _, digit in parts), strict=True)
        ]
        assert back == [x for x, _ in whole]
    assert residues.array([p, p + 1, -1, 10**30]).tolist() == [0, 1, -1, (10**30 + p // 2) % p - p // 2]
    a[1, 7] = 0.5
    assert residues.dot(a, np.ones_like(a)) is None
    a[1, 7] = np.nan
    assert residues.dot(a, b) is None
    with pytest.raises(RefnetError, match="expected fewer"):
        list(residues.digits(a, 2**54))


# What is right passes.


@every_dtype
@every_arithmetic
@pytest.mark.parametrize("name", bundles.NETS)
def test_right_compositions_pass(name, arithmetic, dtype):
    net = bundles.NETS[name]()
    run = ran(net, dtype, arithmetic)
    found = composition.check(run)
    assert found.ok and found.failures == ()
    assert found.draws == (2 if dtype == "float32" else 1)
    assert found.miss == pytest.approx(found.modulus**-found.draws, rel=1e-3) and found.miss < 1e-12
    inexact = {node.name for node in net.nodes if node.op in INEXACT}
    assert set(found.stand_ins) <= inexact
    assert inexact & net.gradient_flow() <= set(found.stand_ins)


INEXACT = {
    op.name for op in OPS.values() if op.divides or op.name in ("average_pool3d", "global_average_pool")
}


@every_dtype
def test_no_false_alarm_over_seeds(dtype):
    makers = [bundles.NETS[name] for name in ("18 conv4, basic", "training step")]
    for make in makers:
        net = make()
        run = ran(net, dtype)
        assert [seed for seed in range(20) if not composition.check(run, seed).ok] == []


def test_every_exact_operator_is_itself_and_every_other_has_a_stand_in():
    exact = {name for name, op in OPS.items() if name not in INEXACT and name != "stop_gradient"}
    assert {*frozen.FROZEN} == exact


# Shapes that make the frozen operands sparse in other ways than the operators' small cases.
LARGER = {
    "conv3d": (
        Case("wide, few positions", ((1, 96, 2, 3, 3), (40, 96, 3, 3, 3)), {"pad": (1, 1, 1)}),
        Case("many filters of one channel", ((2, 1, 2, 9, 9), (200, 1, 1, 3, 3))),
        Case("strided pointwise", ((1, 8, 4, 9, 8), (64, 8, 1, 1, 1)), {"stride": (1, 2, 2)}),
        Case("many groups", ((1, 24, 2, 6, 6), (48, 2, 3, 3, 3)), {"pad": (1, 1, 1), "groups": 12}),
    ),
    "linear": (
        Case("many samples", ((150, 3), (5, 3), (5,))),
        Case("wide", ((2, 300), (120, 300), (120,))),
        Case("many rows", ((1, 2), (300, 2))),
    ),
}


def alone(op, case):
    """A net of one node, all that it reads given."""
    net = refnet.Net()
    names = [net.input(f"x{i}", shape) for i, shape in enumerate(case.shapes)]
    net.output(net.add(op.name, "y", names, **case.attrs))
    return net


@every_dtype
@every_case
def test_every_operator_alone(op, case, dtype):
    net = alone(op, case)
    found = composition.check(ran(net, dtype))
    assert found.ok
    assert found.stand_ins == (("y",) if op.name in INEXACT and net.gradient_flow() else ())


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_every_operator_alone_in_drawn_geometries(op):
    rng = np.random.default_rng(0)
    for seed in range(20):
        case = op.drawn(rng)
        for dtype in ("float32", "float64"):
            found = composition.check(ran(alone(op, case), dtype), seed)
            assert found.ok and found.miss < 1e-12, case


@every_residue_dtype
@pytest.mark.parametrize(
    ("op", "case"),
    [
        pytest.param(OPS[name], case, id=f"{name}: {case.name}")
        for name in frozen.FROZEN
        for case in (*OPS[name].cases, *LARGER.get(name, ()))
    ],
)
def test_no_sum_has_more_terms_than_stated(op, case, dtype):
    net = alone(op, case)
    run = ran(net, dtype)
    for seed in range(5):
        node = frozen.frozen(run, net.nodes[0], np.random.default_rng(seed))
        _, context = op.forward(*(run.given[name] for name in net.inputs), **case.attrs)
        ones = [np.ones(shape) for shape in case.shapes]
        forward, held = np.zeros(()), {}
        if isinstance(node, frozen.Product):
            held = {0: node._x, 1: node._w}
            for i, operand in held.items():
                assert np.isin(operand, (-1, 0, 1)).all() and operand.any()
                arrays = [np.abs(operand) if i == j else a for j, a in enumerate(ones)]
                y, of_ones = op.forward(*arrays[:2], *(0 * b for b in arrays[2:]), **case.attrs)
                forward = forward + y
                # The gradient of the other operand reads this one.
                sums = op.backward(np.ones(y.shape), of_ones, tuple(i + j == 1 for j in range(len(arrays))))
                assert max(g.max() for g in sums if g is not None) <= node.terms
            assert forward.max() + len(case.shapes) - 2 <= node.terms
        else:
            needs = (True,) * len(ones)
            sums = op.backward(np.ones(net.nodes[0].shape), context, needs)
            assert max(g.max() for g in sums) <= node.terms and len(ones) <= node.terms


@pytest.mark.parametrize("groups", [1, 3])
def test_a_product_with_turned_filters_is_the_turned_product(groups):
    rng = np.random.default_rng(0)
    turn = frozen.Turn(groups, 5, rng)
    x, w = rng.integers(-4, 5, (2, 3, 2, 4, 4)), rng.integers(-4, 5, (5 * groups, 3 // groups, 1, 3, 3))
    x, w = x.astype("float64"), w.astype("float64")
    y, _ = reference.conv3d.forward(x, w, groups=groups)
    turned, _ = reference.conv3d.forward(x, turn(w, 0), groups=groups)
    assert np.array_equal(turned, turn(y, 1))
    # Each filter is the next one of its group, times a sign.
    for k in range(5 * groups):
        following = w[k // 5 * 5 + (k + 1) % 5]
        assert np.array_equal(turn(w, 0)[k], following) or np.array_equal(turn(w, 0)[k], -following)


def test_a_second_draw_of_weights_costs_no_call():
    net = refnet.build("resnet18_conv4", input=(1, 3, 2, 16, 16), freeze_at=0)
    calls = []

    def counted(x, w, **attrs):
        calls.append(w.shape)
        return core.kernels["conv3d"].forward(x, w, **attrs)

    run = ran(net, "float32", core.replace(conv3d=Kernel(counted, core.kernels["conv3d"].backward)))
    convolutions = len(calls)
    found = composition.check(run)
    assert found.ok and found.draws == 2 and len(calls) - convolutions == 3 * convolutions
    assert found.modulus**-2 < found.miss < 1.001 * found.modulus**-2


WIDE = {
    "one filter": lambda dw: dw * (np.arange(len(dw)) != 3)[:, None, None, None, None],
    "filters rolled": lambda dw: np.roll(dw, 1, axis=0),
    "signs": lambda dw: -dw,
    "the same error in all": lambda dw: dw + dw.sum(axis=0),
}


@pytest.mark.parametrize("defect", WIDE)
def test_wrong_gradients_of_turned_weights_are_found(defect):
    net = bundles.narrow((1, 1), (32, 32, 36), (1, 3, 2, 32, 32), transformation="basic")
    found = composition.check(ran(net, "float32", doing("conv3d", changed(1, WIDE[defect]))))
    after = {node.name for node in net.nodes if node.op == "conv3d"} & net.gradient_flow()
    assert {(f.tensor, f.node) for f in found.failures} == {(f"{name}_w", name) for name in after}


# What is wrong is found, and named.


def doing(op, backward):
    """Core with a backward kernel that makes something else of (dy, context, needs, core's gradients)."""
    kernel = core.kernels[op]

    def wrong(dy, context, needs):
        return backward(dy, context, needs, kernel.backward(dy, context, needs))

    return core.replace(**{op: Kernel(kernel.forward, wrong)})


def changed(index, change):
    """A backward that changes the gradient of one input."""

    def backward(dy, context, needs, gradients):
        return tuple(change(g.copy()) if i == index and g is not None else g for i, g in enumerate(gradients))

    return backward


def without_last_column(dx):
    dx[..., -1] = 0
    return dx


def relative(gradient):
    return gradient * (1 + 1e-9)


def masked_by_the_wrong_side(dy, context, needs, gradients):
    return (np.where(context > 0, 0, dy),)


def swapped(dy, context, needs, gradients):
    dx, ds, db = core.kernels["affine"].backward(dy, context, (True, True, True))
    return dx, db, ds


def to_the_last(dy, context, needs, gradients):
    x = context[0]
    _, reversed_context = core.kernels["max_pool3d"].forward(
        np.ascontiguousarray(np.flip(x, axis=(2, 3, 4))), kernel=(3, 3, 3), pad=(1, 1, 1)
    )
    dy = np.ascontiguousarray(np.flip(dy, axis=(2, 3, 4)))
    (dx,) = core.kernels["max_pool3d"].backward(dy, reversed_context, needs)
    return (np.ascontiguousarray(np.flip(dx, axis=(2, 3, 4))),)


def first_half(dy, context, needs, gradients):
    return gradients[0], None if gradients[1] is None else 0 * gradients[1]


def reduced_precision(dy, context, needs, gradients):
    """As a convolution whose operands are rounded to 11 bits."""
    bits = dy.astype("float32").view("uint32") & np.uint32(0xFFFFE000)
    return core.kernels["conv3d"].backward(bits.view("float32").astype(dy.dtype), context, needs)


DEFECTS = {
    "last column of dx lost": ("conv3d", changed(0, without_last_column), "that of its forward"),
    "kernel flipped": ("conv3d", changed(1, lambda dw: dw[..., ::-1].copy()), "that of its forward"),
    "time axis flipped": ("conv3d", changed(1, lambda dw: dw[:, :, ::-1].copy()), "that of its forward"),
    "channels rolled": ("conv3d", changed(0, lambda dx: np.roll(dx, 1, axis=1)), "that of its forward"),
    "first frame doubled": ("conv3d", changed(0, lambda dx: doubled_frame(dx)), "that of its forward"),
    "relu mask from the wrong side": ("relu", masked_by_the_wrong_side, "that of its forward"),
    "ds and db swapped": ("affine", swapped, "that of its forward"),
    "ds missing": ("affine", changed(1, lambda ds: 0 * ds), "that of its forward"),
    "db doubled": ("affine", changed(2, lambda db: 2 * db), "that of its forward"),
    "one branch of a sum lost": ("add", first_half, "that of its forward"),
    "no gradient at all": ("affine", lambda *_: (None, None, None), "expected a NumPy array"),
    "gradients of two inputs": ("affine", lambda *_: (None, None), "expected 3 gradients"),
    "relative 1e-9": ("conv3d", changed(0, relative), "holds fractions"),
    "NaN": ("relu", changed(0, lambda dx: dx * np.nan), "holds fractions or NaN"),
    "operands of 11 bits": ("conv3d", reduced_precision, "that of its forward"),
}


def doubled_frame(dx):
    dx[:, :, 0] *= 2
    return dx


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_of_kernels_are_found_where_they_are(defect):
    op, backward, words = DEFECTS[defect]
    net = bundles.NETS["18 conv4, basic"]()
    found = composition.check(ran(net, arithmetic=doing(op, backward)))
    assert not found.ok
    nodes = {node.name: node for node in net.nodes}
    assert {nodes[failure.node].op for failure in found.failures} == {op}
    for failure in found.failures:
        assert failure.tensor in nodes[failure.node].inputs and failure.tensor in failure.sentence
    assert any(words in failure.sentence for failure in found.failures)


def test_a_pool_that_hands_on_to_the_last_of_equal_values_is_found():
    net = alone(OPS["max_pool3d"], Case("ties", ((1, 2, 3, 5, 6),), {"kernel": (3, 3, 3), "pad": (1, 1, 1)}))
    given = {"x0": np.random.default_rng(0).integers(0, 2, (1, 2, 3, 5, 6)).astype("float64")}
    assert composition.check(refnet.forward(net, given)).ok
    (failure,) = composition.check(refnet.forward(net, given, doing("max_pool3d", to_the_last))).failures
    assert (failure.tensor, failure.node) == ("x0", "y")


def test_one_wrong_element_of_many_is_found_in_float32():
    def change(dw):
        dw.reshape(-1)[dw.size // 2] += 1
        return dw

    def at_the_largest(dy, context, needs, gradients):
        return changed(1, change if dy.shape[1] == 16 else lambda dw: dw)(dy, context, needs, gradients)

    net = bundles.NETS["18 conv4, basic"]()
    found = composition.check(ran(net, "float32", doing("conv3d", at_the_largest)))
    assert {failure.tensor[:4] for failure in found.failures} == {"res4"}
    assert all(failure.tensor == failure.node + "_w" for failure in found.failures)


def fan_out():
    """Values that several nodes read, parameters that several nodes share, an output that is read."""
    net = refnet.Net()
    x = net.input("data", (2, 3, 2, 5, 6))
    w, s, b = net.param("w", (3, 3, 1, 3, 3)), net.param("s", (3,)), net.param("b", (3,))
    y = x
    for name in ("a", "c"):
        y = net.add("affine", name, (net.add("conv3d", f"{name}_conv", (y, w), pad=(0, 1, 1)), s, b))
    net.output(y)
    y = net.add("relu", "d", (y,))
    more = net.add("affine", "more", (y, net.param("more_s", (3,)), net.param("more_b", (3,))))
    net.output(net.add("add", "e", (net.add("add", "f", (net.add("add", "twice", (y, y)), more)), x)))
    return net


def totals(monkeypatch, total):
    """Backward with another sum of a value's contributions."""
    right = Arithmetic.total
    monkeypatch.setattr(Arithmetic, "total", lambda arithmetic, parts: right(arithmetic, total(list(parts))))


SUMS = {
    "added once": (lambda parts: parts[:1], "is the contribution of {0} alone; that of {1} is missing"),
    "the last alone": (lambda parts: parts[-1:], "is the contribution of {1} alone; that of {0} is missing"),
    "doubled": (lambda parts: parts + parts[1:], "holds the contribution of {1} twice"),
}


@every_dtype
@pytest.mark.parametrize("defect", SUMS)
def test_sums_at_a_fan_out_are_found(defect, dtype, monkeypatch):
    total, words = SUMS[defect]
    net = bundles.NETS["18 conv4, basic"]()
    run = ran(net, dtype)
    totals(monkeypatch, total)
    found = composition.check(run)
    # A block's input is read by its branch and by its shortcut; the last to read it comes first.
    assert [(failure.tensor, failure.node) for failure in found.failures] == [("res4_0_relu", "res4_0_relu")]
    words = "the gradient of {2} " + words
    assert found.failures[0].sentence == words.format("res4_1_sum", "res4_1_branch2a", "res4_0_relu")


def test_a_fan_out_of_every_kind():
    net = fan_out()
    for dtype in ("float32", "float64"):
        run = ran(net, dtype)
        assert composition.check(run).ok


@pytest.mark.parametrize("first", [True, False])
def test_lost_contributions_of_shared_parameters_and_read_outputs_are_named(first, monkeypatch):
    run = ran(fan_out())
    totals(monkeypatch, lambda parts: parts[:1] if first else parts[1:] or parts)
    found = composition.check(run).failures
    by_tensor = {failure.tensor: failure.sentence for failure in found}
    assert by_tensor.keys() == {"data", "w", "s", "b", "c", "d"}
    ends = {True: "the output alone; that of d is missing", False: "d alone; that of the output is missing"}
    assert by_tensor["c"] == "the gradient of c is the contribution of " + ends[first]
    if first:
        assert by_tensor["s"].endswith("is the contribution of c alone; that of a is missing")
        assert by_tensor["d"].endswith("twice (input 1) alone; that of more and twice (input 0) is missing")
    else:
        assert by_tensor["s"].endswith("is the contribution of a alone; that of c is missing")
        assert by_tensor["d"].endswith("lacks the contribution of twice (input 0)")


def walking(leaks=(), blocks=(), swaps=(), missing=(), extra=()):
    """A backward walk of its own: through some stops, not through some nodes, with the dy of others."""
    swaps = dict(swaps)

    def walk(run, output_gradients, *, on_node=None):
        net, add = run.net, run.arithmetic["add"]
        learnt, dys = net.trainable(), {}
        if leaks:
            learnt = net.learnt() | {node.name for node in net.nodes}
        pending = {name: [dy] for name, dy in output_gradients.items()}

        def total(name):
            first, *others = (part.reshape(1, 1, 1, 1, -1) for part in pending[name])
            for other in others:
                first, _ = add.forward(first, other)
            return first.reshape(net.shape(name))

        for node in reversed(net.nodes):
            if node.name not in pending or node.name not in learnt or node.name in blocks:
                continue
            dys[node.name] = total(node.name)
            if node.op == "stop_gradient":
                if node.name in leaks:
                    pending.setdefault(node.inputs[0], []).append(dys[node.name])
                continue
            dy = dys[swaps.get(node.name, node.name)]
            needs = tuple(name in learnt for name in node.inputs)
            gradients = run.arithmetic[node.op].backward(dy, run._tape.context(node), needs)
            for name, gradient in zip(node.inputs, gradients, strict=True):
                if gradient is not None and (node.name, name) not in missing:
                    pending.setdefault(name, []).append(gradient)
            for name in (name for reader, name in extra if reader == node.name):
                pending.setdefault(name, []).append(gradients[0])
            if on_node is not None:
                on_node(node)
        found = {name: total(name) for name in (*net.inputs, *net.params) if name in pending}
        upstream = net.upstream(output_gradients)
        return Gradients(found, frozenset((net.learnt() & upstream) - found.keys()))

    return walk


@pytest.mark.parametrize("name", bundles.NETS)
def test_somebody_elses_walk_can_be_checked(name):
    run = ran(bundles.NETS[name]())
    assert composition.check(run, walk=walking()).ok


def frozen_net():
    return bundles.NETS["18 conv4"]()  # stops behind res2


def stop_of(net):
    (stop,) = (node for node in net.nodes if node.op == "stop_gradient")
    return stop


def test_a_leak_through_the_stop_is_found():
    net = frozen_net()
    stop = stop_of(net)
    found = composition.check(ran(net), walk=walking(leaks={stop.name}))
    before = {*net.inputs, *net.params} - net.gradient_flow()
    assert "data" in before and {failure.tensor for failure in found.failures} == before
    assert {failure.node for failure in found.failures} == {stop.name}
    assert all(f"leaks through {stop.name}" in failure.sentence for failure in found.failures)


def test_a_leak_into_a_shared_parameter_is_found():
    net = refnet.Net()
    s, b = net.param("s", (3,)), net.param("b", (3,))
    y = net.add("affine", "before", (net.input("data", (2, 3, 1, 4, 4)), s, b))
    y = net.add("stop_gradient", "stop", (y,))
    net.output(net.add("affine", "after", (y, s, b)))
    run = ran(net)
    assert composition.check(run).ok
    found = composition.check(run, walk=walking(leaks={"stop"}, missing={("before", "data")})).failures
    for failure, name in zip(found, "sb", strict=True):
        assert failure.tensor == name
        assert failure.sentence == (
            f"the gradient of {name} holds the contribution of before too, which stop stops"
        )


def test_a_stop_one_node_late_is_found():
    net = frozen_net()
    stop = stop_of(net)
    # From the stop through rectifiers, sums and the pool to the affines before them, not into convolutions.
    late = {node.name for node in net.nodes if node.op == "conv3d" and node.name not in net.gradient_flow()}
    found = composition.check(ran(net), walk=walking(leaks={stop.name}, blocks=late))
    affines = ("res2_1_branch2c_bn", "res2_0_branch2c_bn", "res_conv1_bn")
    assert {f.tensor for f in found.failures} == {f"{affine}_{v}" for affine in affines for v in "sb"}
    assert {failure.node for failure in found.failures} == {stop.name}


@every_dtype
def test_a_stop_one_node_early_is_found(dtype):
    net = frozen_net()
    first = next(n for n in net.nodes if n.name in net.gradient_flow() and n.op == "conv3d")
    found = composition.check(ran(net, dtype), walk=walking(blocks={first.name}))
    assert [(f.tensor, f.node) for f in found.failures] == [
        (f"{first.name}_w", first.name),
        (first.name, first.name),
    ]
    assert f"{first.name}_w has no gradient: backward did not go through {first.name}" in found.failures[0]


def test_a_node_blocked_in_the_real_walk_is_found(monkeypatch):
    net = bundles.NETS["18 conv5"]()
    planned = walks.planned

    def without(net):
        plan = planned(net)
        return replace(plan, trainable=plan.trainable - {"res3_0_branch1"})

    monkeypatch.setattr(walks, "planned", without)
    found = composition.check(ran(net))
    named = {(failure.tensor, failure.node) for failure in found.failures}
    assert ("res3_0_branch1_w", "res3_0_branch1_bn") in named
    assert ("res3_0_branch1", "res3_0_branch1_bn") in named
    assert {tensor for tensor, _ in named} == {"res3_0_branch1", "res3_0_branch1_w"}


def test_a_lost_contribution_is_found():
    net = frozen_net()
    found = composition.check(ran(net), walk=walking(missing={("res4_1_sum", "res4_0_relu")}))
    (failure,) = found.failures
    assert (failure.tensor, failure.node) == ("res4_0_relu", "res4_0_relu")
    assert failure.sentence == (
        "the gradient of res4_0_relu is the contribution of res4_1_branch2a alone; "
        "that of res4_1_sum is missing"
    )


def test_a_gradient_of_another_node_is_found():
    net = frozen_net()
    swap = {"res4_0_branch2b_bn": "res4_1_branch2b_bn"}
    (failure,) = composition.check(ran(net), walk=walking(swaps=swap.items())).failures
    assert (failure.tensor, failure.node) == ("res4_0_branch2b_bn",) * 2
    assert failure.sentence == "the gradient of res4_0_branch2b_bn is that of res4_1_branch2b_bn"


def test_a_contribution_that_leads_nowhere_is_found():
    net = frozen_net()
    walk = walking(extra={("res4_1_branch2a_relu", "res4_0_branch2a_bn")})
    (failure,) = composition.check(ran(net), walk=walk).failures
    assert (failure.tensor, failure.node) == ("res4_0_branch2a_bn",) * 2
    assert "too, which hands it none" in failure.sentence and "res4_1_branch2a_relu" in failure.sentence


def test_a_context_of_another_node_is_found(monkeypatch):
    net = frozen_net()
    context = walks.Tape.context
    others = {"res4_0_branch2b": "res4_1_branch2b", "res4_1_branch2b": "res4_0_branch2b"}
    nodes = {node.name: node for node in net.nodes}
    run = ran(net)
    monkeypatch.setattr(
        walks.Tape, "context", lambda tape, node: context(tape, nodes[others.get(node.name, node.name)])
    )
    found = composition.check(run)
    assert {failure.node for failure in found.failures} == {*others}
    assert all("took the context of" in failure.sentence for failure in found.failures)


def test_what_is_said_to_be_blocked_is_checked():
    net = frozen_net()

    def walk(run, output_gradients, **options):
        found = walking()(run, output_gradients, **options)
        return Gradients(dict(found), found.blocked - {"conv1_w"} | {"labels"})

    failures = composition.check(ran(net), walk=walk).failures
    assert {failure.tensor: failure.sentence for failure in failures} == {
        "conv1_w": "conv1_w is blocked, and is not said to be",
        "labels": "labels is said to be blocked, though no stop lies on a path to it",
    }


def test_a_wrong_shape_and_a_wrong_gradient_after_all_are_found():
    net = frozen_net()

    def walk(run, output_gradients, **options):
        found = walking()(run, output_gradients, **options)
        changed = {
            "res4_1_branch2a_w": found["res4_1_branch2a_w"][:1],
            "res3_0_branch1_bn_b": -found["res3_0_branch1_bn_b"],
        }
        return Gradients(dict(found) | changed, found.blocked)

    shape, sign = composition.check(ran(net), walk=walk).failures
    assert shape.tensor == "res4_1_branch2a_w" and "expected float64 16x16x1x1x1" in shape.sentence
    assert sign.tensor == "res3_0_branch1_bn_b" and "is not the sum of its contributions" in sign.sentence


def test_a_walk_that_errs_once_is_not_passed():
    net = frozen_net()
    calls = []

    def walk(run, output_gradients, **options):
        calls.append(run)
        missing = {("res4_1_sum", "res4_0_relu")} if len(calls) == 1 else ()
        return walking(missing=missing)(run, output_gradients, **options)

    (failure,) = composition.check(ran(net), walk=walk).failures
    assert "a second pass shows no place" in failure.sentence


def test_a_run_that_kept_only_outputs_is_refused():
    net = frozen_net()
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    with pytest.raises(
        RefnetError, match='has not kept conv1: expected one of refnet.forward with keep="all"'
    ):
        composition.check(refnet.forward(net, given, keep="outputs"))


def test_nothing_is_changed_and_everything_is_repeatable():
    net = frozen_net()
    run = ran(net)
    before = {name: value.copy() for name, value in {**run.given, **run.blobs}.items()}
    first, second = composition.check(run, 7), composition.check(run, 7)
    assert first == second
    assert all(np.array_equal(value, before[name]) for name, value in {**run.given, **run.blobs}.items())

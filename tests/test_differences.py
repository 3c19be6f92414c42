"""Gradients of any function: right ones pass, wrong ones do not, and what cannot be known is undecided."""

import sys

import numpy as np
import pytest
from support import every_dtype, peer

from refnet.check.differences import check
from refnet.errors import DTypeError, ShapeError, ValueRangeError

X = np.random.default_rng(0).standard_normal(6)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(dy, x):
    y = softmax(x)
    return (y * (dy - (dy * y).sum(-1, keepdims=True)),)


def logsumexp(x):
    largest = x.max(-1, keepdims=True)
    return (largest + np.log(np.exp(x - largest).sum(-1, keepdims=True)))[..., 0]


def deviation(x):
    d = x - x.mean(-1, keepdims=True)
    return d, np.sqrt((d * d).mean(-1, keepdims=True) + x.dtype.type(1e-5))


def layer_norm(x):
    d, s = deviation(x)
    return d / s


def layer_norm_vjp(dy, x):
    d, s = deviation(x)
    z = d / s
    return ((dy - dy.mean(-1, keepdims=True) - z * (dy * z).mean(-1, keepdims=True)) / s,)


def relu(x):
    return np.maximum(x, 0)


def relu_vjp(dy, x):
    return (dy * (x > 0),)


SMOOTH = {
    "sin": (np.sin, lambda dy, x: (dy * np.cos(x),)),
    "exp": (np.exp, lambda dy, x: (dy * np.exp(x),)),
    "matmul": (lambda a, b: a @ b, lambda dy, a, b: (dy @ b.T, a.T @ dy)),
    "logsumexp": (logsumexp, lambda dy, x: (dy[..., None] * softmax(x),)),
    "softmax": (softmax, softmax_vjp),
    "norm": (lambda x: np.linalg.norm(x), lambda dy, x: (dy * x / np.linalg.norm(x),)),
    "layer norm": (layer_norm, layer_norm_vjp),
    "rational": (
        lambda x: (1 + x) / (2 + x * x),
        lambda dy, x: (dy * ((2 + x * x) - (1 + x) * 2 * x) / (2 + x * x) ** 2,),
    ),
}
every_smooth = pytest.mark.parametrize("name", SMOOTH)


def drawn(name, dtype, seed):
    rng = np.random.default_rng(seed)
    shapes = [(2, 3), (3, 2)] if name == "matmul" else [(2, 4)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def scaled(vjp, factor):
    def wrong(dy, *arrays):
        first, *rest = vjp(dy, *arrays)
        return (first * first.dtype.type(factor), *rest)

    return wrong


def only(report):
    """The verdict of the only array."""
    (verdict,) = report.verdicts.values()
    assert report.ok == (verdict.verdict == "ok")
    return verdict


def undecided(report, *words):
    verdict = only(report)
    assert verdict.verdict == "undecided" and not report.ok
    for word in words:
        assert word in verdict.why, verdict.why
    return verdict


@every_smooth
@every_dtype
def test_no_false_alarm(name, dtype):
    f, vjp = SMOOTH[name]
    for seed in range(200):
        report = check(f, vjp, drawn(name, dtype, seed), seed=seed)
        assert report.ok, (seed, report)


@every_smooth
@pytest.mark.parametrize("factor", [1 + 1e-9, 1 - 1e-9, -1, 0, 2])
def test_what_is_wrong_by_1e_9_is_rejected_in_float64(name, factor):
    f, vjp = SMOOTH[name]
    for seed in range(5):
        report = check(f, scaled(vjp, factor), drawn(name, "float64", seed), seed=seed)
        assert report.verdicts["array 0"].verdict == "wrong"
        assert all(verdict.verdict == "ok" for verdict in list(report.verdicts.values())[1:])


@every_smooth
def test_what_is_wrong_by_1e_4_is_rejected_in_float32(name):
    f, vjp = SMOOTH[name]
    for seed in range(5):
        report = check(f, scaled(vjp, 1 + 1e-4), drawn(name, "float32", seed), seed=seed)
        assert report.verdicts["array 0"].verdict == "wrong"


def test_one_wrong_element_is_found_and_described():
    def vjp(dy, x):
        dx = dy * np.cos(x)
        dx[1, 2] += 1e-9
        return (dx,)

    x = np.random.default_rng(1).standard_normal((3, 4))
    report = check(np.sin, vjp, [x], names=["x"], seed=3)
    verdict = report.worst
    assert (verdict.tensor, verdict.verdict, verdict.where) == ("x", "wrong", (1, 2))
    assert (verdict.wrong, verdict.elements) == (1, 12)
    assert abs(verdict.found - verdict.expected - 1e-9) <= verdict.bound < 1e-12
    assert verdict.margin == pytest.approx(abs(verdict.found - verdict.expected) / verdict.bound)
    assert verdict.reproduce == "refnet.gradcheck.check(f, vjp, arrays, seed=3).verdicts['x']"
    assert report.facts["elements"] == report.facts["complex_steps"] == 12
    assert 0 < report.facts["detectable"]["x"] < 1e-12


def test_what_is_real_only_is_found_by_differences():
    """A norm by abs, cosh of a magnitude: complex numbers give nothing, or the wrong derivative."""
    magnitude = check(np.abs, lambda dy, x: (dy * np.sign(x),), [X])
    assert magnitude.ok and magnitude.facts["complex_steps"] == 0

    def dropped(x):
        return np.append(x[1:] ** 2, x[0].real ** 2)

    def vjp(dy, x):
        return (np.append(2 * x[0] * dy[-1], 2 * x[1:] * dy[:-1]),)

    report = check(dropped, vjp, [X])
    assert report.ok and report.facts["complex_steps"] == 5
    for part in (1e-3, 1e-8):
        arrays = [X, np.array(part)]
        report = check(
            lambda x, p: x + p * np.abs(x),
            lambda dy, x, p: (dy * (1 + p * np.sign(x)), np.sum(dy * np.abs(x))),
            arrays,
        )
        assert report.ok
    assert not check(lambda x: x + 1e-8 * np.abs(x), lambda dy, x: (dy,), [X]).ok


@every_dtype
def test_a_kink_is_undecided_and_both_derivatives_are_said(dtype):
    x = np.array([0, 1, -2], dtype)
    dy = np.array([2, 2, 2], dtype)
    verdict = undecided(
        check(relu, relu_vjp, [x], dy=dy), "1 of 3 elements", "(0,)", "kink", "0 from below, 2 from"
    )
    assert verdict.where == (0,) and verdict.wrong == 0
    undecided(check(np.abs, lambda dy, x: (dy * np.sign(x),), [x], dy=dy), "-2 from below, 2 from above")
    tied = np.array([1, 1, 0], dtype)

    def vjp(dy, x):
        return (dy * (x == x.max()),)

    undecided(check(np.max, vjp, [tied], dy=np.asarray(2, dtype)), "2 of 3 elements", "kink")


def test_a_weak_kink_is_noticed():
    def f(x):
        return x + 1e-6 * np.abs(x)

    undecided(check(f, lambda dy, x: (dy * (1 + 1e-6 * np.sign(x)),), [np.array([0.0, 1.0])]), "kink")


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5])
def test_a_kink_near_by_is_passed_by_with_smaller_steps(distance):
    x = np.array([1 + distance, 1 - distance])

    def f(x):
        return np.maximum(x - 1, 0.1 * (x - 1))

    assert check(f, lambda dy, x: (dy * np.where(x > 1, 1, 0.1),), [x]).ok
    assert only(check(f, lambda dy, x: (dy * np.where(x > 2, 1, 0.1),), [x])).verdict == "wrong"


@pytest.mark.parametrize("distance", [1e-9, 1e-12, 1e-15])
def test_a_kink_too_near_is_undecided(distance):
    x = np.array([1 + distance, 2.0])
    undecided(check(lambda x: relu(x - 1), lambda dy, x: (dy * (x > 1),), [x]), "kink")


def test_relu_and_max_of_random_values_are_decided():
    for seed in range(50):
        x = np.random.default_rng(seed).standard_normal((3, 5))
        assert check(relu, relu_vjp, [x], seed=seed).ok

        def vjp(dy, x):
            return (dy[:, None] * (x == x.max(-1, keepdims=True)),)

        assert check(lambda x: x.max(-1), vjp, [x], seed=seed).ok


def test_jumps():
    zero = check(np.floor, lambda dy, x: (0 * dy,), [np.array([0.5, 1.4, -2.6])])
    assert zero.ok
    undecided(check(np.floor, lambda dy, x: (0 * dy,), [np.array([0.5, 1.0])]), "1 of 2")
    assert not check(np.floor, lambda dy, x: (dy,), [np.array([0.5, 1.4])]).ok


def test_a_bump_narrower_than_the_steps_is_seen():
    def f(x):
        return np.abs(9 + x + 1e-4 * np.exp(-(((x - 1) / 1e-4) ** 2)))

    assert not check(f, lambda dy, x: (dy,), [np.array([1 + 1e-5])]).ok


def test_periods_that_fit_the_steps_are_seen():
    def f(x):
        return np.abs(2 + np.sin(256 * np.pi * x))

    x = np.array([0.0, 1.0, 0.5])
    assert check(f, lambda dy, x: (dy * 256 * np.pi * np.cos(256 * np.pi * x),), [x]).ok
    assert not check(f, lambda dy, x: (0 * dy,), [x]).ok


def test_noise_widens_the_bound():
    def f(x):
        return np.sin(x) * (1 + 1e-8 * np.sin(1e15 * x))

    def vjp(dy, x):
        return (dy * np.cos(x),)

    report = check(f, vjp, [X])
    assert report.ok and report.facts["noise"] > 1e6
    assert not check(f, scaled(vjp, 1.001), [X]).ok
    rng = np.random.default_rng(0)
    undecided(
        check(lambda x: x + rng.standard_normal(6), lambda dy, x: (dy,), [X]), "not deterministic", "up to"
    )


def test_rounding_to_a_narrower_format_inside_f_is_no_false_alarm():
    def vjp(dy, x):
        return (dy * np.cos(x),)

    def f(x):
        return np.sin(x.astype("float32")).astype("float64")

    assert check(f, vjp, [X]).ok
    assert not check(f, scaled(vjp, 1.001), [X]).ok
    undecided(check(lambda x: np.sin(x.astype("float16")).astype("float64"), vjp, [X]), "steps")
    undecided(check(lambda x: (x + 1e12) - 1e12, lambda dy, x: (dy,), [X]))


def test_a_gradient_lost_in_rounding_is_undecided():
    for vjp in (lambda dy, x: (dy,), lambda dy, x: (0 * dy,)):
        undecided(check(lambda x: 1e15 + x, vjp, [X]), "6 of 6", "bound")


def test_a_gradient_that_is_zero_but_for_rounding_is_decided_beside_others():
    """A bias before a softmax has no gradient; rounding leaves one."""

    def vjp(dy, x, c):
        dx = softmax_vjp(dy, x + c)[0]
        return dx, dx.sum(keepdims=True).reshape(1)

    x, c = np.random.default_rng(0).standard_normal(5), np.array([0.3])
    assert check(lambda x, c: softmax(x + c), vjp, [x, c]).ok
    report = check(lambda x, c: softmax(x + c), lambda dy, x, c: (vjp(dy, x, c)[0], c), [x, c])
    assert report.verdicts["array 1"].verdict == "wrong"


def test_huge_and_tiny_scales():
    def sqrt_vjp(dy, x):
        return (dy / 2 / np.sqrt(x),)

    for scale in (1e200, 1e100, 1, 1e-100, 1e-200):
        x = scale * np.array([1.0, 3.0])
        assert check(np.sqrt, sqrt_vjp, [x]).ok
        assert only(check(np.sqrt, scaled(sqrt_vjp, 1 + 1e-9), [x])).verdict == "wrong"
        assert check(lambda x: 2 * x, lambda dy, x: (2 * dy,), [x]).ok
    assert check(np.log, lambda dy, x: (dy / x,), [np.array([1e-200, 1.0])]).ok
    assert check(np.sin, lambda dy, x: (dy * np.cos(x),), [np.array([1e-200, 0.0])]).ok
    undecided(check(np.square, lambda dy, x: (2 * x * dy,), [np.array([1e-200])]))


def test_constants_zeros_and_empty_arrays():
    assert check(lambda x: np.ones(3), lambda dy, x: (0 * x,), [X]).ok
    assert only(check(lambda x: np.ones(3), lambda dy, x: (0 * x + 1e-10,), [X])).verdict == "wrong"
    assert check(np.sin, lambda dy, x: (dy * np.cos(x),), [np.zeros(4)]).ok
    assert check(np.sin, lambda dy, x: (dy * np.cos(x),), [np.array(0.5)]).ok
    report = check(lambda x, y: x + y.sum(), lambda dy, x, y: (dy, 0 * y), [np.zeros((0, 3)), X])
    assert report.ok and report.verdicts["array 0"].elements == 0


def test_integers_are_handed_on():
    index = np.array([0, 0, 3])

    def vjp(dy, x, index):
        return np.bincount(index, dy, minlength=6), None

    def overwritten(dy, x, index):
        dx = np.zeros(6)
        dx[index] = dy
        return dx, None

    def f(x, index):
        assert index.dtype == np.int64
        return x[index]

    report = check(f, vjp, [X, index])
    assert report.ok and list(report.verdicts) == ["array 0"]
    assert only(check(f, overwritten, [X, index])).where == (0,)


def test_several_outputs_and_layouts():
    def f(x):
        return np.sin(x), x.sum()

    x = np.asfortranarray(np.random.default_rng(0).standard_normal((3, 4)))[::-1]
    assert check(f, lambda dy, x: (dy[0] * np.cos(x) + dy[1],), [x]).ok
    assert only(check(f, lambda dy, x: (dy[0] * np.cos(x),), [x])).wrong == 12
    given = (np.ones((3, 4)), np.array(2.0))
    assert check(f, lambda dy, x: dy[0] * np.cos(x) + dy[1], [x], dy=given).ok


def test_where_f_has_no_values():
    undecided(check(np.log, lambda dy, x: (dy / x,), [np.array([1.0, 0.0])]), "f is -inf at (1,)")
    with np.errstate(divide="ignore"):
        undecided(
            check(np.sqrt, lambda dy, x: (dy / 2 / np.sqrt(x),), [np.array([1.0, 0.0])]), "no finite values"
        )

    def raises(x):
        if x.min() < 0:
            raise ValueError("negative")
        return np.sqrt(x)

    assert check(raises, lambda dy, x: (dy / 2 / np.sqrt(x),), [np.array([1e-3, 1.0])]).ok


def test_what_changes_its_arrays_is_wrong():
    def in_place(dy, x):
        x *= 2
        return (dy * np.cos(x / 2),)

    def dy_in_place(dy, x):
        dy *= np.cos(x)
        return (dy,)

    cosine = SMOOTH["sin"][1]
    for f, vjp, cause in [
        (lambda x: np.sin(x, out=x).copy(), cosine, "f changes array 0 in place"),
        (np.sin, in_place, "vjp changes array 0 in place"),
        (np.sin, dy_in_place, "vjp changes dy in place"),
    ]:
        verdict = only(check(f, vjp, [X]))
        assert verdict.verdict == "wrong" and verdict.cause == cause


def test_missing_and_infinite_gradients_are_wrong():
    verdict = only(check(np.sin, lambda dy, x: (None,), [X]))
    assert verdict.verdict == "wrong" and "None" in verdict.cause
    assert check(lambda x: np.ones(2), lambda dy, x: None, [X]).ok
    for value in (np.nan, np.inf):
        verdict = only(check(np.sin, lambda dy, x, value=value: (np.full(6, value),), [X]))
        assert verdict.verdict == "wrong" and verdict.margin == np.inf


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vjp": lambda dy, x: (dy, dy)}, ShapeError, "vjp returned 2 gradients: expected 1, one an array"),
        ({"vjp": lambda dy, x: dy[:3]}, ShapeError, "the gradient of array 0 has shape 3: expected 6"),
        ({"vjp": lambda dy, x: dy.astype("f4")}, DTypeError, "the gradient of array 0 is float32: expected"),
        ({"f": lambda x: x.astype("f2")}, DTypeError, "what f returns is float16: expected"),
        ({"f": lambda x: (x, "y")}, DTypeError, "output 1 of f is a str: expected"),
        ({"arrays": X}, DTypeError, "arrays is an ndarray: expected a list or tuple"),
        ({"arrays": [np.arange(3)]}, ValueRangeError, "arrays has none of float32 or float64"),
        ({"arrays": [np.array([1, np.inf])]}, ValueRangeError, r"array 0 is inf at \(1,\): expected finite"),
        ({"dy": np.ones(3)}, ShapeError, "dy has shape 3: expected 6"),
        ({"dy": np.ones(6, "f4")}, DTypeError, "dy is float32: expected float64"),
        ({"dy": np.full(6, np.nan)}, ValueRangeError, "dy is not finite"),
        ({"names": ["x", "y"]}, ValueRangeError, "names is"),
        ({"rounding": -1}, ValueRangeError, "rounding is -1: expected"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(change, error, message):
    given = {"f": np.sin, "vjp": SMOOTH["sin"][1], "arrays": [X]} | change
    with pytest.raises(error, match=f"^{message}") as raised:
        check(given.pop("f"), given.pop("vjp"), given.pop("arrays"), **given)
    assert "\n" not in str(raised.value)


def test_nothing_is_imported_and_progress_is_told():
    before = {name for name in ("torch", "jax") if name in sys.modules}
    told = []
    check(np.sin, SMOOTH["sin"][1], [X], progress=lambda *step: told.append(step))
    assert told == [("elements", i + 1, 6) for i in range(6)]
    assert before == {name for name in ("torch", "jax") if name in sys.modules}


def test_a_report_repeats():
    first, second = (check(np.exp, SMOOTH["exp"][1], [X]).verdicts for _ in range(2))
    assert first == second


@every_dtype
def test_functions_of_torch(dtype):
    torch = peer("torch")
    rng = np.random.default_rng(0)
    x, w = (torch.from_numpy(rng.standard_normal(shape).astype(dtype)) for shape in [(3, 4), (4, 5)])
    labels = torch.tensor([0, 3, 1])
    layer = torch.nn.Linear(4, 2, dtype=x.dtype)

    def vjp_of(f, factor=1.0):
        def vjp(dy, *arrays):
            copies = [a.clone().requires_grad_(a.is_floating_point()) for a in arrays]
            leaves = [a for a in copies if a.requires_grad]
            found = iter(torch.autograd.grad(f(*copies), leaves, dy))
            return [next(found) * factor if a.requires_grad else None for a in copies]

        return vjp

    functions = [
        (lambda x, w: torch.logsumexp(torch.sin(x) @ w, -1), [x, w]),
        (lambda x, w: torch.softmax(torch.exp(x) @ w, -1), [x, w]),
        (lambda x: torch.nn.functional.layer_norm(x, (4,)), [x.clone().requires_grad_()]),
        (lambda x: torch.linalg.norm(x), [x]),
        (lambda x, i: torch.nn.functional.cross_entropy(x, i), [x, labels]),
        (lambda x: torch.tanh(layer(x)).detach() if not x.requires_grad else torch.tanh(layer(x)), [x]),
    ]
    for f, arrays in functions:
        assert check(f, vjp_of(f), arrays).ok
        factor = 1 + 1e-9 if dtype == "float64" else 1 + 1e-3
        assert check(f, vjp_of(f, factor), arrays).worst.verdict == "wrong"


@every_dtype
def test_functions_of_jax(dtype):
    jax = peer("jax")
    rng = np.random.default_rng(0)
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        x, w = (jax.numpy.asarray(rng.standard_normal(s).astype(dtype)) for s in [(3, 4), (4, 5)])
        for f in (
            lambda x, w: jax.scipy.special.logsumexp(jax.numpy.sin(x) @ w, -1),
            lambda x, w: jax.nn.standardize(x) @ w,
        ):

            def vjp(dy, *arrays, f=f):
                return jax.vjp(f, *arrays)[1](dy)

            report = check(f, vjp, [x, w])
            assert report.ok and report.facts["oracle"].endswith(dtype)
            factor = 1 + 1e-9 if dtype == "float64" else 1 + 1e-3
            assert check(f, scaled(vjp, factor), [x, w]).worst.verdict == "wrong"
    finally:
        jax.config.update("jax_enable_x64", before)

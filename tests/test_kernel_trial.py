"""A kernel under test: what it does right is found right, planted mistakes are found, and so is its order."""

import re
import sys
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl
from support import fails

from refnet.arithmetic import core, find_arithmetic, reference
from refnet.arithmetic.core import conv3d
from refnet.check import kernel_trial
from refnet.check.bounds import Claim
from refnet.check.foreign_kernel import find_kernel
from refnet.check.kernel_trial import examine
from refnet.check.precision import BFLOAT16, FLOAT16, TF32, WAYS
from refnet.errors import KernelError, UnknownNameError, ValueRangeError
from refnet.ops import OPS

DOCS = Path(__file__).parents[1] / "docs"


def convolution(add, operand=lambda values: values):
    """A function that makes y of products (C kT kH kW, filters, positions), which `add` adds up."""

    def conv3d(x, w, b=None, *, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1), groups=1):
        x, w = operand(x), operand(w)
        shape = OPS["conv3d"].infer(
            x.shape, w.shape, stride=stride, pad=pad, dilation=dilation, groups=groups
        )
        padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
        y = np.empty(shape, x.dtype)
        filters, depth = len(w) // groups, w.shape[1]
        columns = np.stack(
            [
                padded[:, :, *(slice(j * d, j * d + s * (n - 1) + 1, s) for j, d, s, n in windows)]
                for tap in np.ndindex(*w.shape[2:])
                for windows in [list(zip(tap, dilation, stride, shape[2:], strict=True))]
            ],
            axis=2,
        )
        for n, group in product(range(len(x)), range(groups)):
            terms = columns[n, group * depth : (group + 1) * depth].reshape(-1, 1, *shape[2:])
            mine = slice(group * filters, (group + 1) * filters)
            weights = w[mine].reshape(filters, -1).T[..., None, None, None]
            y[n, mine] = add(terms * weights)
        return y if b is None else y + b[:, None, None, None]

    return conv3d


def layer(add, operand=lambda values: values):
    """A function that makes y of products (D, samples, rows), which `add` adds up."""

    def linear(x, w, b=None):
        x, w = operand(x).reshape(len(x), -1), operand(w)
        y = add(x.T[:, :, None] * w.T[:, None])
        return y if b is None else y + b

    return linear


def in_order(products):
    return np.cumsum(products, axis=0)[-1]


def backwards(products):
    return np.cumsum(products[::-1], axis=0)[-1]


def in_lanes(products, lanes=8):
    sums = np.zeros((lanes, *products.shape[1:]), products.dtype)
    for first in range(0, len(products), lanes):
        some = products[first : first + lanes]
        sums[: len(some)] += some
    while len(sums) > 1:
        sums = sums[::2] + sums[1::2]
    return sums[0]


def in_chains(products, size=256):
    return in_order(np.stack([in_order(products[i : i + size]) for i in range(0, len(products), size)]))


CHAINS = "2 blocks of 256 terms in order, the last of 176, added to each other"
ORDERS = {
    "432 terms in order": ("conv3d", convolution(in_order), 160),
    "2 blocks of 256 terms in order, the last of 176, added to each other": (
        "conv3d",
        convolution(in_chains),
        160,
    ),
    "300 terms backwards": ("linear", layer(backwards), 480),
    "4 lanes of 75 terms in order, added pairwise": ("linear", layer(partial(in_lanes, lanes=4)), 480),
}


@pytest.mark.parametrize("words", ORDERS)
def test_a_right_kernel_is_right_in_every_bit(words):
    op, kernel, elements = ORDERS[words]
    report = examine(op, kernel, draws=2)
    assert report.ok, report
    assert report.facts["order"] == {"y": words}
    verdicts = {name: verdict.verdict for name, verdict in report.verdicts.items()}
    exact = dict.fromkeys(["integers y", "inputs", "batch", "repeats", "threads", "order y"], "exact")
    assert verdicts == exact | {"reals y": "consistent"}
    order = report.verdicts["order y"]
    assert order.structure == f"{words}; products rounded first, sums in float32; all {elements} elements"
    assert order.elements == elements and order.wrong == 0


def test_the_kernels_of_core_have_the_order_that_they_state():
    report = examine("conv3d", core.kernels["conv3d"], draws=2)
    assert report.ok, report
    assert report.facts["order"] == {
        "y": CHAINS,
        "dx": "135 terms in order",
        "dw": "2 blocks of 108 terms in order, added to each other",
    }
    for name in "y", "dx", "dw":
        verdict = report.verdicts[f"order {name}"]
        assert verdict.verdict == "exact" and "fused multiply-adds, sums in float32" in verdict.structure
    assert {"integers dw", "reals db", "integers adjoint dx", "needs"} <= report.verdicts.keys()


@pytest.mark.parametrize("op", OPS)
def test_every_operator_of_core_passes(op):
    """Forward and backward, in both dtypes."""
    for dtype in "float32", "float64":
        report = examine(op, core.kernels[op], draws=2, dtype=dtype)
        assert report.ok, report


def test_averages_have_an_order():
    def pool(x, *, over_time=False):
        axes = (2, 3, 4) if over_time else (3, 4)
        rows = np.moveaxis(x, axes, range(len(axes))).reshape(-1, *np.delete(x.shape, axes))
        return np.expand_dims(in_order(rows) / np.float32(len(rows)), axes)

    report = examine("global_average_pool", pool, draws=2)
    assert report.ok, report
    structure = "256 terms in order; sums in float32, then divided; all 12 elements"
    assert report.verdicts["order y"].structure == structure


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", [TF32, BFLOAT16, FLOAT16], ids=lambda form: form.name)
def test_operands_of_fewer_bits_show(form, way):
    """On whole numbers by their values, in the order by every bit; float16 has TF32's bits."""

    def rounded(values):
        return form.round(values.astype("float64"), way).astype(values.dtype)

    report = examine("linear", layer(in_order, rounded), draws=2)
    for name in "integers y", "reals y", "order y":
        assert report.verdicts[name].verdict == "impossible", report
    names = [f"operands {form.name} {way}", f"operands tf32 {way}"]
    assert report.verdicts["order y"].hypothesis in names
    # Of few numbers none may be a tie.
    names += [name.replace("away", "nearest") for name in names]
    assert report.verdicts["integers y"].hypothesis in names
    assert report.verdicts["reals y"].hypothesis in names


@pytest.mark.parametrize("way", WAYS)
def test_operands_of_fewer_bits_that_are_claimed_are_right(way):
    def rounded(values):
        return BFLOAT16.round(values.astype("float64"), way).astype(values.dtype)

    kernel = layer(in_lanes, rounded)
    report = examine("linear", kernel, draws=2, claim=Claim("float32", "float32", "bfloat16", way))
    assert report.ok, report
    assert report.verdicts["order y"].verdict == "exact"
    other = next(one for one in WAYS if one != way)
    report = examine("linear", kernel, draws=2, claim=Claim("float32", "float32", "bfloat16", other))
    assert report.verdicts["order y"].verdict == "impossible"


def test_sums_that_are_claimed_in_another_format():
    """Results stored in bfloat16 of sums in float32: whole numbers are not asked."""

    def stored(x, w, b=None):
        return BFLOAT16.round(layer(in_order)(x, w, b).astype("float64")).astype("float32")

    report = examine("linear", stored, draws=2, claim=Claim("float32", "bfloat16"))
    assert report.ok, report
    assert "integers y" not in report.verdicts and "not asked" in report.facts["integers"]
    assert report.verdicts["order y"].verdict == "exact"
    assert not examine("linear", stored, draws=0).ok


def test_a_kernel_is_called_what_it_was_given_as(refnet, tmp_path):
    """A pair of functions, an object, an arithmetic's; in messages, too."""
    (tmp_path / "named_kernels.py").write_text(
        "import numpy as np\n"
        "from refnet.arithmetic import Kernel, core\n"
        "def forward(x):\n"
        "    return np.maximum(x, 0), x > 0\n"
        "def backward(dy, positive, needs):\n"
        "    return (dy * positive,)\n"
        "mine = Kernel(forward, backward)\n"
        "arithmetic = core.replace(relu=mine)\n"
        "class Both:\n"
        "    forward, backward = staticmethod(forward), staticmethod(backward)\n"
        "both = Both()\n"
        "alone = Kernel(lambda x: np.maximum(x, 0), backward)\n"
    )
    for name in ("mine", "arithmetic", "both"):
        code, out, err = refnet("certify", "--kernel", f"named_kernels:{name}", "relu", "--draws", 1)
        assert (code, err) == (0, "") and f"\nnamed_kernels:{name} as relu: exact" in out
    misused = refnet("certify", "--kernel", "named_kernels:alone", "relu")
    fails(misused, "named_kernels:alone forward returned an ndarray")
    assert examine("relu", core.relu, draws=1, title="mine").title == "mine as relu"


def test_a_wrong_kernel_says_how_its_call_is_made_again(tmp_path, monkeypatch):
    """What the report prints is run, and shows the difference."""
    (tmp_path / "mine_flipped.py").write_text(
        "from refnet.arithmetic import reference\n"
        "def conv3d(x, w, b=None, **attrs):\n"
        "    arrays = [x, w[:, :, ::-1]] + ([] if b is None else [b])\n"
        "    return reference.conv3d.forward(*arrays, **attrs)[0]\n"
    )
    monkeypatch.chdir(tmp_path)
    kernel = find_kernel("mine_flipped:conv3d")
    report = examine("conv3d", kernel, draws=2)
    assert report.title == "mine_flipped:conv3d as conv3d"
    for name in "integers y", "reals y":
        verdict = report.verdicts[name]
        assert verdict.hypothesis == "kernel flipped T"
        monkeypatch.syspath_prepend(tmp_path)
        names = {}
        exec(verdict.reproduce, names)
        right = reference.conv3d.forward(*names["p"].arrays, **names["p"].case.attrs)[0]
        assert not np.allclose(names["y"], right, atol=1e-3)


def test_a_wrong_gradient_is_found_beside_a_right_one():
    own = core.kernels["conv3d"]

    def backward(dy, context, needs):
        dx, dw, *db = own.backward(dy, context, needs)
        return dx, None if dw is None else dw * np.float32(1 + 1e-5), *db

    report = examine("conv3d", SimpleNamespace(forward=own.forward, backward=backward), draws=2)
    assert not report.verdicts["integers dw"].passes and not report.verdicts["reals dw"].passes
    assert report.verdicts["integers dx"].passes and report.verdicts["reals dx"].passes
    assert report.verdicts["order dx"].verdict == "exact" != report.verdicts["order dw"].verdict


def test_gradients_that_nobody_asked_for_are_noted():
    own = core.kernels["linear"]

    def backward(dy, context, needs):
        return own.backward(dy, context, (True,) * len(needs))

    report = examine("linear", SimpleNamespace(forward=own.forward, backward=backward), draws=2)
    assert report.ok, report
    verdict = report.verdicts["needs"]
    assert verdict.verdict == "consistent" and "which nobody needed" in verdict.structure


def test_a_kernel_that_depends_on_its_batch():
    """Several samples are added in another order than one: nothing is wrong, and it is said."""

    def add(products):
        return (in_order if products.shape[1] > 1 else backwards)(products)

    report = examine("linear", layer(add), draws=8)
    assert report.ok, report
    assert report.verdicts["batch"].verdict == "consistent"
    assert re.search(
        r"sample 0 of \d has other bits alone: \d+ of \d+ elements", report.verdicts["batch"].structure
    )


def test_a_kernel_that_is_wrong_on_samples_alone():
    def relu(x):
        return np.maximum(x, 0) if len(x) > 1 else x * np.float32(1)

    verdict = examine("relu", relu, draws=8).verdicts["batch"]
    assert verdict.verdict == "impossible" and "computed alone" in verdict.cause


def test_a_kernel_whose_order_changes():
    rng = np.random.default_rng(0)
    report = examine("linear", layer(lambda products: in_order(rng.permutation(products))), draws=2)
    assert report.ok, report
    assert "other bits" in report.verdicts["repeats"].structure
    order = report.verdicts["order y"]
    assert order.verdict == "consistent" and "differs from call to call" in order.structure


def test_a_kernel_whose_order_depends_on_its_threads():
    def add(products):
        threads = max(info["num_threads"] for info in threadpoolctl.threadpool_info())
        return in_lanes(products, 2) if threads == 1 else in_order(products)

    report = examine("linear", layer(add), draws=2)
    assert report.ok, report
    assert re.search(r"a call on \d threads returned other bits", report.verdicts["threads"].structure)
    assert "threadpoolctl" in report.facts["threads"]


def test_a_kernel_of_two_orders():
    """The first three rows and the others are added in orders of their own."""

    def add(products):
        y = in_order(products)
        y[:, 3:] = backwards(products)[:, 3:]
        return y

    report = examine("linear", layer(add), draws=2)
    assert report.verdicts["order y"].verdict == "exact"
    found = re.fullmatch(
        r"300 terms in order \(of (\d+) elements\); 300 terms backwards \(of (\d+) elements\)",
        report.facts["order"]["y"],
    )
    assert found and sum(map(int, found.groups())) == 480


def test_an_order_that_masks_do_not_show():
    """It follows the values: no tree has these bits."""

    def pool(x, *, over_time=False):
        axes = (2, 3, 4) if over_time else (3, 4)
        rows = np.moveaxis(x, axes, range(len(axes))).reshape(-1, *np.delete(x.shape, axes))
        return np.expand_dims(in_order(np.sort(rows, axis=0)) / np.float32(len(rows)), axes)

    verdict = examine("global_average_pool", pool, draws=2).verdicts["order y"]
    assert verdict.verdict in ("refused", "consistent")
    assert not verdict.structure.endswith("elements")


def raises(x, w, b=None, **attrs):
    raise RuntimeError("no such tile")


def of_wrong_shape(x, w, b=None, **attrs):
    return convolution(in_order)(x, w, b, **attrs)[..., :-1]


def of_wrong_dtype(x, w, b=None, **attrs):
    return convolution(in_order)(x, w, b, **attrs).astype("float64")


def of_no_array(x, w, b=None, **attrs):
    return "y"


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (raises, "RuntimeError: no such tile"),
        (of_wrong_shape, "expected float32"),
        (of_wrong_dtype, "expected float32"),
        (of_no_array, "expected"),
    ],
)
def test_a_kernel_that_cannot_be_used_is_a_finding(kernel, words):
    report = examine("conv3d", kernel, draws=1)
    assert not report.ok
    for name in "integers y", "reals y", "batch", "repeats", "threads", "order y":
        verdict = report.verdicts[name]
        assert not verdict.passes
        assert words in (verdict.cause or verdict.why), verdict


def test_a_kernel_that_changes_its_inputs():
    report = examine("relu", lambda x: np.maximum(x, 0, out=x), draws=2)
    assert report.verdicts["inputs"].verdict == "impossible"
    assert report.verdicts["inputs"].cause == "it changed x"
    assert report.verdicts["reals y"].passes


def test_problems_that_say_nothing_decide_nothing():
    """Of one that is drawn, all outputs see nothing but padding; a kernel of zeros is right there alone."""
    assert examine("conv3d", core.kernels["conv3d"], draws=6).ok

    def zeros(x, w, b=None, **attrs):
        return np.zeros(OPS["conv3d"].infer(x.shape, w.shape, **attrs), x.dtype)

    verdict = examine("conv3d", zeros, draws=6).verdicts["reals y"]
    assert verdict.verdict == "impossible"
    assert re.search(r"in (\d+) of \1 calls", verdict.structure)


def test_the_command_examines_a_kernel(refnet, tmp_path):
    """The documentation's kernel, and what it says that is printed, but for the widths of columns."""
    texts = (DOCS / "certify_kernel.md").read_text()
    code, printed = re.findall(
        r"<!-- (?:example|printed): kernel under test -->\n```\w+\n(.*?)```", texts, re.DOTALL
    )
    (tmp_path / "mine.py").write_text(code)
    command, *lines = printed.splitlines()
    words = command.removeprefix("$ refnet ").split()
    found, out, err = refnet(*words)
    assert (found, err) == (0, "")
    out = [" ".join(line.split()) for line in out.splitlines()]
    assert [line for line in lines if " ".join(line.split()) not in out] == []
    assert "order 8 lanes of 38 terms in order or one less, added pairwise" in out[-1]
    (tmp_path / "mine.py").write_text(code.replace("x[:, d], w", "x[:, d] * np.float32(1.001), w"))
    sys.modules.pop("mine")
    found, out, err = refnet(*words)
    assert found == 1 and "refnet certify linear --kernel mine:linear" in out


def test_what_is_not_asked_of_an_operator_is_said():
    facts = examine("batch_norm_training", core.kernels["batch_norm_training"], draws=2).facts
    assert "does not apply" in facts["batch"] and "not asked" in facts["order"]


def test_without_means_threads_are_not_varied(monkeypatch):
    monkeypatch.setattr(kernel_trial, "_means", list)
    report = examine("relu", core.kernels["relu"], draws=1)
    assert "threads" not in report.verdicts and "not varied" in report.facts["threads"]


# ---- Kernels by name


def test_a_kernel_is_found_in_the_current_folder(folder):
    (folder / "own_kernels.py").write_text(
        "def relu(x): return abs(x)\nclass Pair:\n    forward = backward = relu\n"
    )
    path = list(sys.path)
    assert find_kernel("own_kernels:relu")(-1) == 1
    assert find_kernel("own_kernels:Pair.forward")(-1) == 1
    assert find_kernel("refnet.arithmetic.core.conv3d:KERNEL") is conv3d.KERNEL
    assert sys.path == path


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("own_kernels", ValueRangeError, "expected module:function"),
        ("own_kernels:", ValueRangeError, "expected module:function"),
        ("own kernels.py:relu", ValueRangeError, "names a file: did you mean own kernels:relu?"),
        ("own_kernels.py:relu", ValueRangeError, "names a file: did you mean own_kernels:relu?"),
        ("no_such_module:relu", ValueRangeError, "no module 'no_such_module'"),
        ("own_kernels:rlu", UnknownNameError, "did you mean relu"),
        (
            "own_kernels:number",
            ValueRangeError,
            "is an int: expected a function, an object with forward and backward, or an arithmetic",
        ),
        ("own_broken:relu", KernelError, "ZeroDivisionError"),
        ("own_needy:relu", KernelError, "no_such_package"),
        ("own_exit:relu", KernelError, "SystemExit"),
    ],
)
def test_a_kernel_that_is_not_found_is_one_line(folder, source, error, words):
    (folder / "own_kernels.py").write_text("number = 3\ndef relu(x): return x\n")
    (folder / "own_broken.py").write_text("1 / 0\n")
    (folder / "own_needy.py").write_text("import no_such_package\n")
    (folder / "own_exit.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(error, match=re.escape(words)) as found:
        find_kernel(source)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (
            "quick",
            UnknownNameError,
            "unknown arithmetic 'quick': expected one of reference, core, exact, module",
        ),
        ("own_kernels", ValueRangeError, "did you mean own_kernels:NAME, an arithmetic in own_kernels.py?"),
        ("own_kernels.py", ValueRangeError, "names a file: did you mean own_kernels:NAME?"),
        ("own_kernels.py:mine", ValueRangeError, "names a file: did you mean own_kernels:mine?"),
        ("own_kernels:", ValueRangeError, "expected module:name, as my_kernels:arithmetic"),
        ("no_such_module:mine", ValueRangeError, "no module 'no_such_module'"),
        ("own_kernels:mime", UnknownNameError, "arithmetic of own_kernels 'mime': did you mean mine"),
        ("own_kernels:kernel", ValueRangeError, "own_kernels:kernel is a Kernel: expected an arithmetic, as"),
        ("own_broken:mine", KernelError, "ZeroDivisionError"),
    ],
)
def test_an_arithmetic_of_a_module_is_found_or_one_line_says_why_not(folder, source, error, words):
    (folder / "own_kernels.py").write_text(
        "from refnet.arithmetic import core\nkernel = core.kernels['relu']\n"
        "mine = core.replace(relu=kernel)\n"
    )
    (folder / "own_broken.py").write_text("1 / 0\n")
    mine = find_arithmetic("own_kernels:mine")
    assert mine.name == "core with relu replaced" and mine.kernels == core.kernels
    assert find_arithmetic("core") is core
    with pytest.raises(error, match=re.escape(words)) as found:
        find_arithmetic(source)
    assert "\n" not in str(found.value)

"""`refnet certify`: what it judges with which claims, exit codes, lines that reproduce a failure."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from support import fails, peer

import refnet as package
from refnet import golden
from refnet.check.bounds import plain
from refnet.check.precision import BFLOAT16
from refnet.check.report import Report, Verdict
from refnet.cli import certify as command

OPTIONS = {"width_per_group": 4, "time_kernel": 1, "freeze_at": 0}
INPUT = (1, 3, 2, 32, 32)
NET = package.build("resnet18_conv4", input=INPUT, **OPTIONS)


def arrays(dtype):
    run = package.forward(NET, package.fill.inputs(NET, 3, dtype) | package.fill.params(NET, 3, dtype))
    gradients = package.backward(run, package.fill.output_gradients(NET, 3, dtype))
    return run, gradients


RUN, GRADIENTS = arrays("float32")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    recipe = golden.Recipe("resnet18_conv4", INPUT, OPTIONS, seed=3)
    return golden.make(tmp_path_factory.mktemp("bundles") / "hashes", recipe, hashes_only=True).path


@pytest.fixture
def dump(tmp_path):
    """Write a candidate: everything that a run computed, with some arrays in place of others."""

    def write(name="dump.npz", **others):
        blobs = {f"blob/{name}": blob for name, blob in RUN.blobs.items()}
        gradients = {f"grad/{name}": gradient for name, gradient in GRADIENTS.items()}
        np.savez(tmp_path / name, **blobs | gradients | others)
        return name

    return write


@pytest.fixture
def judged(monkeypatch):
    """A certification that judges nothing: what it was asked, and the verdicts that it is to give."""

    class Judged(dict):
        bad = ()

        def certify(self, net, given, candidate, **claims):
            claims.pop("progress")("forward", 1, 1)
            self.update(net=net, given=given, candidate=candidate, claims=claims)
            right = {name: Verdict(tensor=name, verdict="exact", node=name) for name in ("conv1", "pool1")}
            verdicts = right | {verdict.tensor: verdict for verdict in self.bad}
            return Report(title="a candidate", verdicts=verdicts, facts={"store": "float32"})

    made = Judged()
    monkeypatch.setattr(command, "certification", made)
    return made


WRONG = Verdict(
    tensor="res3_0_branch2b",
    verdict="impossible",
    margin=2.0,
    node="res3_0_branch2b",
    op="conv3d",
    where=(0, 1, 2, 3, 4),
)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == expected[name].dtype and np.array_equal(array, expected[name]), name


def test_what_is_judged(refnet, bundle, dump, judged):
    code, out, err = refnet("certify", bundle, dump())
    assert (code, err) == (0, "")
    assert "dump.npz for resnet18_conv4 on 1x3x2x32x32, freeze_at 0, time_kernel 1, width_per_group 4" in out
    assert judged["net"].nodes == NET.nodes
    same(judged["given"], RUN.given)
    same(judged["candidate"].blobs, RUN.blobs)
    same(judged["candidate"].gradients, dict(GRADIENTS))
    dy = judged["claims"].pop("output_gradients")
    same(dy, package.fill.output_gradients(NET, 3, "float32"))
    assert judged["claims"] == {}


def test_every_claim_is_made(refnet, bundle, dump, judged):
    claims = [
        *("--accumulate", "float64", "--store", "bfloat16", "--operands", "tf32"),
        *("--operand-rounding", "away", "--flush-to-zero", "--algorithm", "one-pass variance"),
        *("--fused", "conv1,res_conv1_bn,conv1_relu", "--fused", "res2_0_sum,res2_0_relu"),
        *("--axes", "NTHWC", "--kernel-axes", "THWCK", "--delta", "1e-9"),
    ]
    judged.bad = [WRONG]
    code, out, err = refnet("certify", bundle, dump(), *claims)
    assert (code, err) == (1, "")
    first = judged["claims"]
    first.pop("output_gradients")
    assert first == {
        "accumulate": "float64",
        "store": "bfloat16",
        "operands": "tf32",
        "operand_rounding": "away",
        "flush_to_zero": True,
        "algorithm": "one-pass variance",
        "fused": [["conv1", "res_conv1_bn", "conv1_relu"], ["res2_0_sum", "res2_0_relu"]],
        "axes": "NTHWC",
        "kernel_axes": "THWCK",
        "delta": 1e-9,
    }
    line = next(line for line in out.splitlines() if line.startswith("    refnet certify"))
    assert line.endswith("  # res3_0_branch2b at 0, 1, 2, 3, 4")
    judged.clear()
    assert refnet(*shlex.split(line, comments=True)[1:])[0] == 1
    judged["claims"].pop("output_gradients")
    assert judged["claims"] == first


@pytest.mark.parametrize("word", ["impossible", "implausible", "systematic", "refused"])
def test_a_candidate_that_fails(refnet, bundle, dump, judged, word):
    judged.bad = [Verdict(**vars(WRONG) | {"verdict": word})]
    code, out, err = refnet("certify", bundle, dump())
    assert (code, err) == (1, "") and f"res3_0_branch2b: {word}" in out
    code, out, err = refnet("certify", bundle, dump(), "--json")
    found = json.loads(out)
    assert (code, err) == (1, "") and not found["ok"] and found["facts"] == {"store": "float32"}
    reproduce = {name: verdict["reproduce"] for name, verdict in found["verdicts"].items()}
    assert reproduce["res3_0_branch2b"].startswith(f"refnet certify {bundle} dump.npz  # res3_0_branch2b")
    assert not reproduce["conv1"]


def test_a_page_is_written(refnet, bundle, dump, judged, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    judged.bad = [WRONG]
    code, out, err = refnet("certify", bundle, dump(), "--html", "a.html")
    assert (code, err) == (1, "") and out.startswith("a.html: ")
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!doctype html>") and "refnet certify" in page
    code, out, _ = refnet("certify", bundle, dump(), "--html", "a.html", "--json")
    assert code == 1 and not json.loads(out)["ok"] and (tmp_path / "a.html").read_text() == page


# What the candidate's run started from.


def test_no_gradients_start_nowhere(refnet, bundle, judged, tmp_path):
    np.savez(tmp_path / "blobs.npz", **RUN.blobs)
    assert refnet("certify", bundle, "blobs.npz")[0] == 0
    assert judged["claims"]["output_gradients"] is None


def test_gradients_start_from_the_candidates_own_or_the_bundles(refnet, bundle, dump, judged):
    expected = package.fill.output_gradients(NET, 3, "float32")
    for name, dy in expected.items():
        own = np.full_like(dy, 0.5)
        refnet("certify", bundle, dump(**{f"dY/{name}": own}))
        same(judged["claims"]["output_gradients"], expected | {name: own})
    refnet("certify", bundle, dump(), "--axes", "NTHWC")
    theirs = {name: dy.transpose(0, 2, 3, 4, 1) for name, dy in expected.items()}
    same(judged["claims"]["output_gradients"], theirs)  # all of a candidate is in its order of axes


@pytest.mark.parametrize("store", ["bfloat16", "float16", "float64"])
def test_a_bundles_values_are_rounded_to_the_candidates_storage(refnet, bundle, dump, judged, store):
    """By another way than the command's: NumPy's, and of bfloat16 the bits."""
    refnet("certify", bundle, dump(), "--store", store)
    for name, value in (package.fill.inputs(NET, 3) | package.fill.params(NET, 3)).items():
        match store:
            case "float64":
                expected = value
            case "float16":
                expected = value.astype("f4").astype("f2").astype("f4")
            case _:
                ml_dtypes = peer("ml_dtypes")
                expected = value.astype("f4").astype(ml_dtypes.bfloat16).astype("f4")
        found = judged["given"][name]
        assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_a_candidates_own_values_are_taken_where_they_are_the_bundles(refnet, bundle, dump, judged):
    params = package.fill.params(NET, 3, "float32")
    w, s = params["conv1_w"], params["res_conv1_bn_s"]
    nearest, toward_zero = BFLOAT16.round(w.astype("f8")), BFLOAT16.round(w.astype("f8"), "zero")
    assert not np.array_equal(nearest, toward_zero)
    for own in (nearest, toward_zero, w):
        own = own.astype("f4")
        assert refnet("certify", bundle, dump(**{"param/conv1_w": own}), "--store", "bfloat16")[0] == 0
        assert np.array_equal(judged["given"]["conv1_w"], own)
        theirs = {"param/conv1_w": own.transpose(2, 3, 4, 1, 0)}
        axes = ("--kernel-axes", "THWCK")
        assert refnet("certify", bundle, dump(**theirs), "--store", "bfloat16", *axes)[0] == 0
        assert np.array_equal(judged["given"]["conv1_w"], own)
        assert "given otherwise" not in json.loads(refnet("certify", bundle, dump(), "--json")[1])["facts"]
    nan = w.copy()
    nan[0, 0, 0, 0, 0] = np.nan
    for name, value, expected in (
        ("conv1_w", toward_zero.astype("f4"), w),  # not a rounding to float32
        ("conv1_w", w[:, ::-1], w),  # R, G, B for B, G, R
        ("conv1_w", nan, w),
        ("conv1_w", w[0], w),
        ("res_conv1_bn_s", s.astype("i8"), s),
    ):
        out = refnet("certify", bundle, dump(**{f"param/{name}": value}), "--json")[1]
        assert np.array_equal(judged["given"][name], expected)
        assert json.loads(out)["facts"]["given otherwise"] == name


def test_an_input_that_is_not_the_bundles_is_judged(refnet, bundle, dump, judged):
    data = package.fill.inputs(NET, 3, "float32")["data"]
    assert refnet("certify", bundle, dump(**{"input/data": data}))[0] == 0
    assert "data" not in judged["candidate"].blobs and np.array_equal(judged["given"]["data"], data)
    for name in ("input/data", "blob/data", "data"):
        assert refnet("certify", bundle, dump(**{name: data[:, ::-1]}))[0] == 0
        assert np.array_equal(judged["candidate"].blobs["data"], data[:, ::-1])
        assert np.array_equal(judged["given"]["data"], data)


# The real thing.


def test_an_honest_candidate(refnet, bundle, dump):
    code, out, err = refnet("certify", bundle, dump())
    assert (code, err) == (0, ""), out
    found = json.loads(refnet("certify", bundle, dump(), "--json")[1])
    assert found["ok"] and {v["verdict"] for v in found["verdicts"].values()} <= {"exact", "consistent"}
    assert {node.name for node in NET.nodes} | {f"d {name}" for name in GRADIENTS} <= found["verdicts"].keys()


def test_a_bundle_certifies_another(refnet, bundle, tmp_path):
    """Computed in float64, judged as that; in float32 by the claim that is nobody's, as rounded from it."""
    recipe = golden.Bundle(bundle).recipe
    golden.make(tmp_path / "whole", recipe)
    wide = ("--accumulate", "float64", "--store", "float64", "--operands", "float64")
    assert refnet("certify", bundle, "whole", *wide)[0] == 0
    golden.make(tmp_path / "single", replace(recipe, dtype="float32"))
    assert refnet("certify", bundle, "single")[0] == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 4}, "seed 3 and 4"),
        ({"input": (1, 3, 2, 48, 32)}, "input 1x3x2x32x32 and 1x3x2x48x32"),
        ({"options": OPTIONS | {"freeze_at": 2}}, "freeze_at 0 and 2"),
    ],
)
def test_a_bundle_of_another_recipe_is_refused(refnet, bundle, tmp_path, changes, said):
    other = replace(golden.Recipe("resnet18_conv4", INPUT, OPTIONS, seed=3), **changes)
    path = golden.make(tmp_path / "other", other, only=("blobs",)).path
    expected = "expected a candidate for resnet18_conv4 on 1x3x2x32x32, freeze_at 0, time_kernel 1"
    fails(refnet("certify", bundle, path), f"the recipes differ: {said}", expected, "seed 3")


@pytest.mark.parametrize("axes", [("NTHWC", "THWCK"), ("NTCHW", "KTHWC")])
def test_a_candidate_of_another_order_of_axes(refnet, bundle, axes, tmp_path):
    def theirs(name, array):
        order = axes[1] if name in NET.params else axes[0]
        ours = "KCTHW" if name in NET.params else "NCTHW"
        return array.transpose([ours.index(axis) for axis in order]) if array.ndim == 5 else array

    values = {f"blob/{name}": theirs(name, blob) for name, blob in RUN.blobs.items()}
    values |= {f"input/{name}": theirs(name, RUN.given[name]) for name in NET.inputs}
    values |= {f"param/{name}": theirs(name, RUN.given[name]) for name in NET.params}
    values |= {f"grad/{name}": theirs(name, gradient) for name, gradient in GRADIENTS.items()}
    dy = package.fill.output_gradients(NET, 3, "float32")
    for starts in ({}, {f"dY/{name}": theirs(name, array) for name, array in dy.items()}):
        np.savez(tmp_path / "theirs.npz", **values | starts)
        code, out, _ = refnet("certify", bundle, "theirs.npz", "--axes", axes[0], "--kernel-axes", axes[1])
        assert code == 0 and "given otherwise" not in out, out
    fails(refnet("certify", bundle, "theirs.npz"), f"looks like {axes[0]}: data is", f"--axes {axes[0]}")


STEM = ("conv1", "res_conv1_bn", "conv1_relu", "pool1")
DATA, W, BLOBS = RUN.given["data"], RUN.given["conv1_w"], RUN.blobs


@pytest.mark.parametrize(
    ("others", "node", "words"),
    [
        ({"input/data": DATA[:, ::-1]}, "data", "BGR"),
        ({"data": DATA[:, :, ::-1]}, "data", "frames are in reverse"),
        ({"blob/conv1": BLOBS["res_conv1_bn"]}, "conv1", ""),  # dumped after the norm, in place
        ({"blob/pool1": BLOBS["pool1"][:, :, ::-1]}, "pool1", ""),
        ({"blob/pool1": BLOBS["pool1"].transpose(0, 2, 3, 4, 1)}, "pool1", "its shape is 1x2x8x8x64"),
        ({"blob/pool1": BLOBS["pool1"][0]}, "pool1", "its shape is 64x2x8x8, expected 1x64x2x8x8"),
        ({"blob/conv1": np.full(NET.shape("conv1"), np.nan, "f4")}, "conv1", ""),
        ({"blob/conv1": BLOBS["conv1"].astype("f2")}, "conv1", "float16"),
        ({"blob/conv1": (255 * BLOBS["conv1"]).astype("i4")}, "conv1", "is int32: expected float32"),
        ({"param/conv1_w": 2 * W}, None, ""),
    ],
)
def test_what_porters_do_wrong_is_found(refnet, bundle, tmp_path, others, node, words):
    """In the file, not in the network: what a dump may hold otherwise, or call by another name."""
    np.savez(tmp_path / "stem.npz", **{f"blob/{name}": BLOBS[name] for name in STEM} | others)
    code, out, err = refnet("certify", bundle, "stem.npz", "--json")
    found = json.loads(out)
    failed = [v for v in found["verdicts"].values() if v["verdict"] in ("impossible", "implausible")]
    assert (code, err) == (1, "")  # nobody dumped the output
    assert [v["node"] for v in failed][:1] == [node][: node is not None]
    assert node is None or words in failed[0]["cause"]
    assert found["facts"].get("given otherwise") == {"param/conv1_w": "conv1_w", "input/data": "data"}.get(
        *others
    )


def test_names_and_claims_that_do_not_fit_the_net_are_refused(refnet, bundle, dump):
    fails(refnet("certify", bundle, dump(**{"blob/conv2": BLOBS["conv1"]})), "'conv2'", "conv1")
    fails(refnet("certify", bundle, dump(), "--axes", "NHWC"), "axes is 'NHWC'", "NCTHW")
    fails(refnet("certify", bundle, dump(), "--fused", "conv1,relu"), "'relu'", "fused")
    fails(refnet("certify", bundle, dump(), "--delta", "2"), "delta is 2.0")


def test_a_dump_by_the_originals_names(refnet, bundle, tmp_path):
    blobs = package.interop.caffe2.blobs(RUN)
    for more in ({}, {"data": RUN.given["data"]}):
        np.savez(tmp_path / "caffe2.npz", **blobs, **more)
        code, out, _ = refnet("certify", bundle, "caffe2.npz")
        assert code == 0, out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["BUNDLE"]),
        (["BUNDLE"], ["expected BUNDLE CANDIDATE"]),
        (["none", "dump.npz"], ["none is not a folder: expected a golden bundle"]),
        (["dump.npz", "dump.npz"], ["dump.npz is not a folder: expected a golden bundle"]),
        (["BUNDLE", "none.npz"], ["none.npz does not exist", "expected .npz"]),
        (
            ["BUNDLE", "BUNDLE"],
            ["holds only the hash of blobs and gradients: expected a bundle with its tensors"],
        ),
        (["BUNDLE", "dump.npz", "--store", "tf32"], ["--store 'tf32'", "float64, float32"]),
        (["BUNDLE", "dump.npz", "--accumulate", "fp32"], ["--accumulate 'fp32'", "float32"]),
        (["BUNDLE", "dump.npz", "--operands", "bf16"], ["--operands 'bf16'", "bfloat16"]),
        (["BUNDLE", "dump.npz", "--operand-rounding", "up"], ["--operand-rounding 'up'", "nearest, away"]),
        (
            ["BUNDLE", "dump.npz", "--operand-rounding", "zero"],
            ["operands are not rounded", "--operands too"],
        ),
        (["BUNDLE", "dump.npz", "--algorithm", "winogrand"], ["did you mean winograd?"]),
        (["BUNDLE", "dump.npz", "--delta", "small"], ["--delta", "small"]),
        (["BUNDLE", "dump.npz", "--html", "a.svg"], ["a.svg cannot be written", ".html"]),
        (["BUNDLE", "other.npz"], ["unknown input or parameter of the candidate 'conv1_v'", "conv1_w"]),
    ],
)
def test_mistakes_get_one_clear_line(refnet, bundle, dump, judged, arguments, words):
    dump()
    dump("other.npz", **{"param/conv1_v": np.ones(2)})
    fails(refnet("certify", *(bundle if word == "BUNDLE" else word for word in arguments)), *words)
    assert not judged


def test_help_says_what_there_is(refnet, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = refnet("certify", "--help")
    options = (
        "--accumulate",
        "--store",
        "--operands",
        "--operand-rounding",
        "--flush-to-zero",
        "--algorithm",
    )
    more = (
        "--fused",
        "--axes",
        "--kernel-axes",
        "--delta",
        "--json",
        "--html",
        "--all",
        ".safetensors",
        ".pb",
    )
    assert code == 0 and all(option in out for option in (*options, *more))


# A kernel under test.


@pytest.fixture
def examined(monkeypatch):
    """An examination that tries nothing: what it was asked, and the verdicts that it is to give."""

    class Examined(dict):
        bad = ()

        def examine(self, op, kernel, *, progress, **options):
            progress("integers", 1, 1)
            self.update(op=op, kernel=kernel, **options)
            verdicts = {v.tensor: v for v in (Verdict(tensor="integers y", verdict="exact"), *self.bad)}
            return Report(title=f"the kernel of {op}", verdicts=verdicts, facts={"order": "sequential"})

    made = Examined()
    monkeypatch.setattr(command, "examine", made.examine)
    monkeypatch.setattr(command, "find_kernel", lambda source: source)
    return made


def test_a_kernel_is_examined(refnet, examined, tmp_path):
    code, out, err = refnet("certify", "--kernel", "mine:conv", "conv3d", "--html", "a.html")
    assert (code, err) == (0, "") and "the kernel of conv3d" in out and "order sequential" in out
    asked = {"op": "conv3d", "kernel": "mine:conv", "title": "mine:conv"}
    assert examined == {**asked, "claim": plain("float32")}
    assert "the kernel of conv3d" in (tmp_path / "a.html").read_text()
    examined.bad = [Verdict(tensor="reals dw", verdict="impossible", where=(1, 0))]
    given = ["--seed", "5", "--draws", "7", "--dtype", "float64", "--operands", "tf32", "--flush-to-zero"]
    code, out, err = refnet("certify", "conv3d", "--kernel", "mine:conv", *given)
    first = dict(examined)
    claim = plain("float64")._replace(operands="tf32", flush_to_zero=True)
    assert first == {**asked, "claim": claim, "seed": 5, "draws": 7, "dtype": "float64"}
    assert (code, err) == (1, "") and "reals dw: impossible" in out
    line = next(line for line in out.splitlines() if line.startswith("    refnet certify"))
    assert line.endswith("  # reals dw at 1, 0")
    examined.clear()
    assert refnet(*shlex.split(line, comments=True)[1:])[0] == 1 and examined == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["conv2d", "--kernel", "mine:conv"], ["unknown operator 'conv2d'", "conv3d"]),
        (["conv3d", "dump.npz", "--kernel", "mine:conv"], ["dump.npz is given", "expected OP alone"]),
        (
            ["conv3d", "--kernel", "mine:conv", "--axes", "NTHWC"],
            ["--axes is given, but a kernel"],
        ),
        (
            ["conv3d", "--kernel", "mine:conv", "--fused", "a,b"],
            ["--fused is given, but a kernel"],
        ),
        (
            ["conv3d", "--kernel", "mine:conv", "--delta", "0.1"],
            ["--delta is given, but a kernel"],
        ),
        (["conv3d", "--kernel", "mine:conv", "--draws", "0"], ["--draws is 0", "1 to 100000"]),
        (["conv3d", "--kernel", "mine:conv", "--dtype", "float16"], ["unknown --dtype 'float16'", "float64"]),
        (["conv3d", "--draws", "3"], ["--draws is given, but there is no kernel: expected --kernel too"]),
        (["conv3d"], ["conv3d is an operator: expected refnet certify --kernel MODULE:FUNCTION"]),
    ],
)
def test_mistakes_about_kernels_get_one_clear_line(refnet, examined, arguments, words):
    fails(refnet("certify", *arguments), *words)
    assert not examined


def test_an_arithmetics_own_kernel_of_the_operator_is_examined(refnet, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from refnet import Kernel\nfrom refnet.arithmetic import Arithmetic, core\n"
        "kernel = Kernel(lambda x: (-x, x), core.kernels['relu'].backward)\n"
        "few = Arithmetic('few', {'relu': core.kernels['relu']})\n"
        "wrong = few.replace(relu=kernel)\n"
    )
    code, out, err = refnet("certify", "relu", "--kernel", "mine:few", "--draws", "2")
    assert (code, err) == (0, "") and "integers dx" in out
    assert refnet("certify", "relu", "--kernel", "mine:wrong", "--draws", "2")[0] == 1
    fails(
        refnet("certify", "add", "--kernel", "mine:few"), "unknown operator of arithmetic few 'add'", "relu"
    )


def test_a_function_that_returns_a_context_too_is_told_what_to_do(refnet, tmp_path):
    (tmp_path / "mine.py").write_text("from refnet.arithmetic import core\nrelu = core.relu.forward\n")
    advice = "expected y alone, or name an object with forward and backward (a Kernel)"
    found = refnet("certify", "relu", "--kernel", "mine:relu", "--draws", "2")
    fails(found, f"mine:relu returned (y, context): {advice}")


@pytest.mark.parametrize(
    ("forward", "backward", "words"),
    [
        ("x", "(dy,)", "forward returned an ndarray: expected (y, context)"),
        ("(x * (x > 0), x > 0)", "dy * c", "backward returned an ndarray: expected a tuple"),
    ],
)
def test_what_no_kernel_returns_is_no_verdict(refnet, tmp_path, forward, backward, words):
    (tmp_path / "mine.py").write_text(
        "from refnet.arithmetic import Kernel\n"
        f"relu = Kernel(lambda x: {forward}, lambda dy, c, needs: {backward})\n"
    )
    fails(refnet("certify", "relu", "--kernel", "mine:relu", "--draws", "2"), words)


def test_an_operator_or_a_network_in_place_of_a_bundle_leads_to_what_takes_it(refnet):
    fails(refnet("certify", "relu", "mine:relu"), "relu is an operator", "certify --kernel mine:relu relu")
    fails(refnet("certify", "relu"), "certify --kernel MODULE:FUNCTION relu")
    fails(refnet("certify", "--kernel", "relu", "mine:relu"), "expected --kernel mine:relu relu")
    fails(refnet("certify", "resnet18_conv4", "a.npz"), "refnet golden make resnet18_conv4 BUNDLE")


def test_a_kernel_is_found_by_its_name(refnet, tmp_path):
    (tmp_path / "mine.py").write_text("def relu(x):\n    return abs(x)\n")
    code, out, err = refnet("certify", "--kernel", "mine:relu", "relu", "--draws", "2")
    assert (code, err) == (1, "") and "impossible" in out
    (tmp_path / "right.py").write_text("def relu(x):\n    return x * (x > 0)\n")
    assert refnet("certify", "--kernel", "right:relu", "relu", "--draws", "2")[0] == 0
    fails(
        refnet("certify", "--kernel", "nobody:relu", "relu"), "no module 'nobody'", "expected module:function"
    )

"""A file imports only from floors below its own; only `core` knows the kernels."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "refnet"
FLOORS = [
    ["_core"],
    [
        "errors",
        "shapes",
        "shown",
        "memory",
        "progress",
        "timing",
        "environment",
        "regular",
        "bounded_json",
        "cached",
        "pieces",
    ],
    ["arrays", "draws", "modules", "placing"],
    ["op"],
    ["ops.*"],
    ["ops"],
    ["arithmetic.table"],
    ["arithmetic.reference", "arithmetic.core.runtime"],
    ["arithmetic.core.buffers"],
    ["arithmetic.core.channels"],
    ["arithmetic.core.*"],
    ["arithmetic.core"],
    ["arithmetic.exact.fallback", "arithmetic.exact.rational", "arithmetic.exact.door"],
    [
        "arithmetic.exact.channels",
        "arithmetic.exact.elementary",
        "arithmetic.exact.products",
        "arithmetic.exact.weighted",
    ],
    ["arithmetic.exact.*"],
    ["arithmetic.exact"],
    ["arithmetic"],
    ["net"],
    ["inplace"],
    ["given", "remat"],
    ["run"],
    ["inputs.*", "machine"],
    ["inputs"],
    ["networks.*"],
    ["networks"],
    ["trace.*"],
    ["trace"],
    ["golden.graph", "golden.recipe"],
    ["golden.folder"],
    ["golden.manifest"],
    ["golden.bundle"],
    ["golden.derive", "golden.sources"],
    ["golden.findings", "golden.candidate", "golden.causes"],
    ["golden.against", "golden.statistics"],
    ["golden"],
    ["check.precision", "check.summation"],
    ["check.report", "check.bounds", "check.flow", "check.problems", "check.extrapolation", "check.foreign"],
    ["check.compare", "check.locate", "check.maps", "check.retrace", "check.reveal", "check.subject"],
    ["check.algorithms"],
    ["check.formulas", "check.judge", "check.derivatives"],
    ["check.replay"],
    ["check.mistakes.changes", "check.mistakes.sliding"],
    ["check.mistakes.hypothesis"],
    ["check.mistakes.order"],
    ["check.mistakes.*"],
    ["check.mistakes"],
    ["check.causes"],
    ["check.diagnosis"],
    ["check.foreign_kernel", "check.kernel_order", "check.residues"],
    ["check.frozen"],
    ["check.summands"],
    ["check.expected", "check.dumped"],
    ["check.choices", "check.claims", "check.fed", "check.plausible", "check.wrong_shape"],
    ["check.natural"],
    ["check.jury"],
    ["check.handed"],
    ["check.one_call", "check.walk"],
    ["check.certification"],
    ["check.operators", "check.composition", "check.differences"],
    ["check.kernel_trial"],
    ["check.enclosure"],
    ["check.network", "check.captured"],
    ["check"],
    ["interop.fit"],
    ["interop.torch_names"],
    ["interop.torch_capture"],
    ["interop.*"],
    ["interop"],
    ["gradcheck", "certify"],
    ["pinned"],
    ["pytest_plugin"],
    ["bench"],
    ["bench.problem", "bench.limits", "bench.measurement", "bench.agreement", "bench.threads", "bench.load"],
    ["bench.peer", "bench.problems"],
    ["bench.own", "bench.peers.torch_twins"],
    ["bench.peers.*"],
    ["bench.peers"],
    ["bench.measure", "bench.peak"],
    ["bench.arithmetics", "bench.duration", "bench.changes"],
    ["render"],
    [
        "render.columns",
        "render.document",
        "render.files",
        "render.gather",
        "render.facts",
        "render.palette",
        "render.verdict_facts",
        "render.words",
    ],
    ["render.terminal", "render.made"],
    ["render.drawing", "render.verdict_drawing"],
    ["render.*"],
    ["cli.ending"],
    ["cli.options", "cli.output", "cli.golden_findings", "cli.certify_start"],
    [
        "cli.list",
        "cli.info",
        "cli.trace",
        "cli.bench",
        "cli.bench_diff",
        "cli.gradcheck",
        "cli.certify",
        "cli.golden_make",
        "cli.golden_verify",
        "cli.golden_diff",
        "cli.golden_show",
    ],
    ["cli.app"],
    ["cli"],
    ["__main__"],
]
# Within a floor: the definitions come before the kernels, builders before the catalog.
NEIGHBOURS = {
    ("shapes", "errors"),
    ("shown", "errors"),
    ("memory", "errors"),
    ("inputs.decode", "inputs.orientation"),
    ("inputs.candidate", "inputs.tensor_files"),
    ("inputs.tensor_files", "inputs.npy_header"),
    ("inputs.tensor_files", "inputs.safetensors_file"),
    ("inputs.clip", "inputs.decode"),
    ("inputs.clip", "inputs.npy_header"),
    ("inputs.clip", "inputs.resize"),
    ("ops.cross_entropy", "ops.softmax"),
    ("ops.batch_norm_training", "ops.batch_norm"),
    ("ops.running_mean", "ops.batch_norm"),
    ("ops.running_mean", "ops.batch_norm_training"),
    ("ops.running_variance", "ops.batch_norm"),
    ("ops.running_variance", "ops.batch_norm_training"),
    ("ops.running_variance", "ops.running_mean"),
    ("arithmetic.core.batch_norm_training", "arithmetic.core.batch_norm"),
    ("arithmetic.core.linear", "arithmetic.core.conv3d"),
    ("arithmetic.exact.linear", "arithmetic.exact.conv3d"),
    ("arithmetic.exact.batch_norm_training", "arithmetic.exact.batch_norm"),
    ("arithmetic.exact.running_variance", "arithmetic.exact.batch_norm"),
    ("arithmetic.exact.running_variance", "arithmetic.exact.running_mean"),
    ("arithmetic.exact.cross_entropy", "arithmetic.exact.softmax"),
    ("trace.nodes", "trace.receptive"),
    ("trace.explanation", "trace.receptive"),
    ("trace.freeze", "trace.nodes"),
    ("networks.resnet3d", "networks.layers"),
    ("networks.catalog", "networks.resnet3d"),
    ("networks.catalog", "networks.fpn3d"),
    ("networks.catalog", "networks.roi_head"),
    ("networks.catalog", "networks.classifier"),
    ("networks.classifier", "networks.resnet3d"),
    ("networks.classifier", "networks.layers"),
    ("networks.roi_head", "networks.resnet3d"),
    ("networks.roi_head", "networks.time_link"),
    ("networks.fpn3d", "networks.layers"),
    ("check.mistakes.sliding", "check.mistakes.changes"),
    ("render.golden_show", "render.tables"),
    ("render.roofline", "render.figure"),
}
# What a method looks up when it is called: a run writes itself down.
UPWARD = {("run", "golden")}
# What is no kernel of an operator.
BESIDE_KERNELS = {
    ("_core", "_core.openmp"),
    ("environment", "_core.environment"),
    ("check.compare", "_core.compare"),
    ("check.plausible", "_core.residual"),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in FILES}


def floor(name):
    for height, names in enumerate(FLOORS):
        if name in names or (name.rpartition(".")[0] + ".*" in names and "." in name):
            return height
    raise AssertionError(f"refnet.{name} stands on no floor: add it to FLOORS")


def imports(path):
    """The refnet modules that a file imports, `from package import module` resolved."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("refnet").lstrip(".")
                for alias in node.names
                if alias.name.split(".")[0] == "refnet"
            )
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module.split(".")[0] == "refnet":
                base = node.module.removeprefix("refnet").lstrip(".")
                for alias in node.names:
                    full = f"{base}.{alias.name}".lstrip(".")
                    is_module = full in MODULES or full.startswith("_core") or node.module == "refnet"
                    yield full if is_module else base


@pytest.mark.parametrize("path", [f for f in FILES if module(f)], ids=module)
def test_imports_go_down(path):
    name = module(path)
    found = sorted(set(imports(path)))
    for imported in found:
        if imported.startswith("_core"):
            may = (
                name.startswith(("arithmetic.core.", "arithmetic.exact."))
                or (name, imported) in BESIDE_KERNELS
            )
            assert may, f"{name} imports {imported}: only kernels may"
        elif (name, imported) not in NEIGHBOURS | UPWARD:
            assert floor(imported) < floor(name), f"{name} imports {imported}, not below it"


def test_the_test_sees_imports():
    """The walker itself: it must find what is plainly there."""
    assert set(imports(PACKAGE / "ops" / "add.py")) == {"arrays", "draws", "errors", "op", "shapes"}
    assert "_core.conv3d" in set(imports(PACKAGE / "arithmetic" / "core" / "conv3d.py"))
    assert "networks.resnet3d" in set(imports(PACKAGE / "networks" / "catalog.py"))


@pytest.mark.parametrize("path", sorted((ROOT / "_core").glob("*.p*x*")), ids=lambda p: p.name)
def test_kernels_import_nothing_of_refnet_but_each_other(path):
    text = path.read_text()
    assert "import refnet" not in text
    for line in text.splitlines():
        if line.startswith("from refnet"):
            assert line.startswith("from refnet._core")
    assert "scipy" not in text, "no BLAS computes a result"
    if path.stem != "openmp":
        assert "omp.h" not in text and "cimport openmp" not in text.replace("_core cimport openmp", "")


def test_every_file_stands_on_a_floor():
    assert all(floor(name) >= 0 for name in MODULES if name)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda p: p.name)
def test_test_modules_share_through_support_alone(path):
    modules = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    assert not [m.module for m in modules if m.module.startswith("test_") or m.module == "conftest"]

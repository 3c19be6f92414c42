"""`refnet bench` on tiny problems: what is measured, checked, refused; no test looks at a time."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from support import fails, peer

import refnet as library
from refnet import fill, timing
from refnet.arithmetic import core, exact
from refnet.arithmetic.core.conv3d import workspace_bytes
from refnet.arithmetic.core.runtime import spin
from refnet.bench import arithmetics, duration, limits, load, measure, own
from refnet.bench.agreement import DisagreementError
from refnet.bench.measure import Setting
from refnet.bench.measurement import Measurement, Spread
from refnet.bench.peer import Peer
from refnet.bench.peers import PEERS, torch_twins
from refnet.bench.peers import numpy as numpy_peer
from refnet.bench.problem import Problem
from refnet.bench.problems import BASE, CONVOLUTIONS, OTHERS
from refnet.cli import bench
from refnet.op import Case
from refnet.ops import OPS
from refnet.progress import silent
from refnet.render import measured, roofline

TINY = (
    Problem("conv3d", Case("tiny & pointwise", ((2, 3, 2, 5, 4), (4, 3, 1, 1, 1)))),
    Problem(
        "conv3d",
        Case(
            "tiny strided, grouped",
            ((1, 4, 3, 6, 5), (6, 2, 3, 3, 3)),
            {"stride": (1, 2, 2), "pad": (1, 1, 1), "groups": 2},
        ),
    ),
)
DIRECTIONS = ("forward", "dx", "dw")
OTHER = [Problem(op, OPS[op].cases[0]) for op in ("relu", "softmax", "cross_entropy", "dropout")]
SMALL = ("--input", "1x3x1x32x32", "--width-per-group", "4")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(bench, "CONVOLUTIONS", TINY)
    monkeypatch.setattr(measure, "BASE", TINY[0])
    monkeypatch.setattr(bench, "OTHERS", OTHER)
    for name, value in {
        "GEMM_SIZE": 32,
        "SPINS": 64,
        "COPIED": 1 << 12,
        "ATTEMPTS": 2,
    }.items():
        monkeypatch.setattr(limits, name, value)
    monkeypatch.setattr(load, "LOOK", 0)
    monkeypatch.setattr(load, "others", lambda since: 0.0)
    monkeypatch.setattr(measure, "exceeding", lambda rows, machine: iter(()))
    monkeypatch.setattr(timing, "WARM", 1e-9)
    monkeypatch.setattr(timing, "PATIENCE", 0)
    limits._square.cache_clear()
    yield
    limits._square.cache_clear()


def quiet(err):
    """Nothing is said but how long it takes."""
    return re.fullmatch(r"(refnet: measuring takes about \d+ \w+(, beside [\w, ]+)?\n)?", err)


def setting(*peers, dtypes=("float64", "float32")):
    return Setting(peers, dtypes, 1, 2, silent)


def wrong(calls, direction, name):
    """The same calls, one of them off by one in one value."""

    def call():
        found = {key: np.array(value) for key, value in calls[direction]().items()}
        found[name].flat[-1] += 1
        return found

    return calls | {direction: call}


def broken(direction, name):
    """A peer that is the definition, but for one value."""

    def operator(*arguments):
        return wrong(numpy_peer.operator(*arguments), direction, name)

    def train(threads, *arguments):
        return wrong({direction: own.train(*arguments)}, direction, name)[direction]

    return replace(PEERS["numpy"], name="broken", operator=operator, train=train)


@pytest.fixture
def untimed(monkeypatch):
    """Any timing is an error."""

    def refuse(*arguments, **options):
        raise AssertionError("something was timed")

    monkeypatch.setattr(measure, "seconds", refuse)


def test_problems_have_names_of_their_own_and_fit():
    assert len(CONVOLUTIONS) == 11 and BASE in CONVOLUTIONS
    for problems in (CONVOLUTIONS, OTHERS):
        assert len({problem.name for problem in problems}) == len(problems)
    for problem in (*CONVOLUTIONS, *OTHERS):
        assert problem.name and problem.cost("float32").bytes > 0


def test_the_directions_of_a_product_are_its_gradients():
    assert all(problem.directions == DIRECTIONS for problem in CONVOLUTIONS)
    found = {problem.op: problem.backward for problem in OTHERS}
    assert found["linear"] == {"backward": ("dx", "dw", "db")}
    assert found["cross_entropy"] == found["dropout"] == {"backward": ("dx",)}
    assert found["running_mean"] == {}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_peer_is_exact_or_says_what_it_lacks(name, dtype):
    for package in PEERS[name].packages:
        peer(package)
    rows = measure.operators(TINY, setting(PEERS[name], dtypes=[dtype]))
    assert [(row.problem, row.direction) for row in rows] == [(p.name, d) for p in TINY for d in DIRECTIONS]
    for row in rows:
        cell = row.peers[name]
        if name != "onnxruntime":
            assert isinstance(cell, Spread) and cell.values
        elif row.direction != "forward":
            assert cell == "no gradients"
        else:
            assert cell == "no float64" if dtype == "float64" else isinstance(cell, Spread)


@pytest.mark.parametrize(("direction", "name"), [("forward", "y"), ("dx", "dx"), ("dw", "dw")])
def test_a_wrong_convolution_is_named_and_nothing_is_timed(untimed, direction, name):
    message = rf"broken: tiny & pointwise, {direction}, float64: 1 of \d+ values of {name}"
    with pytest.raises(DisagreementError, match=message):
        measure.operators(TINY, setting(PEERS["numpy"], broken(direction, name)))


def test_a_wrong_shape_or_a_missing_result_is_named(untimed):
    def flat(*arguments):
        return dict.fromkeys(DIRECTIONS, lambda: {"y": np.zeros(3)})

    def nothing(*arguments):
        return dict.fromkeys(DIRECTIONS, dict)

    for operator, word in ((flat, "y is 3, refnet's"), (nothing, "only one of the two has y")):
        with pytest.raises(DisagreementError, match=word):
            measure.operators(TINY, setting(replace(PEERS["numpy"], name="other", operator=operator)))


def test_nan_is_wrong(untimed):
    def operator(*arguments):
        calls = numpy_peer.operator(*arguments)
        return calls | {"dw": lambda: {"dw": np.full_like(calls["dw"]()["dw"], np.nan)}}

    with pytest.raises(DisagreementError, match="dw"):
        measure.operators(TINY, setting(replace(PEERS["numpy"], operator=operator)))


def test_a_wrong_operator_is_named(untimed):
    with pytest.raises(DisagreementError, match=r"broken: .*, backward, float64: dx is"):
        measure.operators(OTHER, setting(broken("backward", "dx")))


def test_a_wrong_net_is_named(untimed):
    options = {"width_per_group": 4}
    name = "gradient of res3_0_branch2b_w"
    with pytest.raises(DisagreementError, match=name):
        measure.nets(["resnet18_conv4"], (1, 3, 1, 32, 32), options, setting(broken(measure.TRAINING, name)))


def test_a_wrong_peer_ends_with_1(refnet, monkeypatch):
    monkeypatch.setitem(PEERS, "broken", broken("dw", "dw"))
    code, out, err = refnet("bench", "--peers", "numpy,broken", "--plot", "a.svg")
    said, wrong = err.splitlines()
    assert code == 1 and out == "" and wrong.startswith("refnet: broken: tiny & pointwise, dw, float64")
    assert said.startswith("refnet: measuring takes about ")


def test_a_slow_peer_is_measured_once(monkeypatch):
    monkeypatch.setattr(measure, "SLOW", -1)
    monkeypatch.setattr(measure, "FAR", -1)
    (row, *_) = measure.operators(TINY, setting(PEERS["numpy"]))
    assert len(row.peers["numpy"].values) == 1


def test_json_has_everything(refnet):
    code, out, err = refnet("bench", "--peers", "numpy", "--threads", 1, "--rounds", 2, "--json")
    assert code == 0 and quiet(err)
    found = json.loads(out)
    assert found["settings"] == {"threads": 1, "rounds": 2, "dtypes": ["float64", "float32"]}
    assert found["peers"]["numpy"]["versions"] == {"numpy": np.__version__}
    assert found["machine"]["blas"] and found["machine"]["cpu"] and found["machine"]["bandwidth"] > 0
    for dtype in ("float64", "float32"):
        limit = found["machine"][dtype]
        assert limit["multiply_add_peak"] > 0 and len(limit["gemm_rate"]["values"]) == 2
        assert limit["workspace_bytes_per_thread"] == workspace_bytes(dtype)
        assert found["geometric_means"]["convolutions"][dtype]["numpy"] > 0
    rows = found["convolutions"]
    assert {(r["problem"], r["direction"], r["dtype"]) for r in rows} == {
        (problem.name, direction, dtype)
        for problem in TINY
        for direction in DIRECTIONS
        for dtype in ("float64", "float32")
    }
    for row in rows:
        share, cell = row["own"]["share of GEMM"], row["peers"]["numpy"]
        times = row["milliseconds"]
        assert times.keys() == {"refnet", "numpy"} and len(times["refnet"]["values"]) == 2
        for name, rate in row["gflops"].items():
            done = 2 * row["facts"]["multiply_adds"] / (times[name]["median"] / 1000) / 1e9
            assert abs(rate - done) <= 1e-12 * done
        assert len(share["values"]) == len(cell["values"]) == 2
        assert cell["least"] <= cell["median"] <= cell["most"] and row["facts"]["multiply_adds"] > 0
    scaled = [row["problem"] for row in found["scaling"] if row["dtype"] == "float32"]
    assert found["machine"]["load"]["others_during"] == 0 and found["warnings"] == []
    assert len(scaled) == 9 and f"{TINY[0].name}, HxW doubled" in scaled


def test_tables_say_what_is_missing(refnet, monkeypatch):
    absent = Peer("absent", ("no-such-package",), "", numpy_peer.operator)
    monkeypatch.setattr(bench, "PEERS", {"numpy": PEERS["numpy"], "absent": absent})
    code, out, err = refnet("bench", "--only", "strided", "--rounds", 1, "--dtype", "float32")
    assert code == 0 and quiet(err) and "tiny strided, grouped" in out and "pointwise" not in out
    assert "no-such-package is not installed: pip install no-such-package" in out
    assert " ms  GFLOP/s  share of GEMM " in out and "Warning" not in out
    assert "geometric mean" in out and "multiply-adds/s in registers" in out and "doubled" not in out
    found = json.loads(refnet("bench", "--only", "strided", "--rounds", 1, "--json")[1])
    assert "not installed" in found["peers"]["absent"]["unusable"]


def test_a_broken_installation_is_reported(monkeypatch):
    def fall(name):
        raise OSError("a library\nis missing")

    monkeypatch.setattr("refnet.bench.peer.import_module", fall)
    assert PEERS["numpy"].unusable().endswith("cannot be imported: a library is missing")


def test_operators_beside_peers(refnet):
    code, out, err = refnet("bench", "--operators", "--peers", "numpy", "--rounds", 1)
    assert code == 0 and quiet(err) and "copies" in out and "backward" in out
    peer("jax")
    found = json.loads(refnet("bench", "--operators", "--peers", "jax", "--rounds", 1, "--json")[1])
    assert {r["peers"]["jax"]["unavailable"] for r in found["operators"]} == {"convolution only"}


def test_every_operator_has_a_twin():
    assert all(callable(getattr(torch_twins, op)) for op in OPS)


def test_a_net_beside_torch(refnet):
    peer("torch")
    command = ("bench", "--arch", "resnet18_conv4", *SMALL, "--dtype", "float32", "--peers", "torch,numpy")
    code, out, err = refnet(*command, "--rounds", 1, "--json")
    assert code == 0 and quiet(err)
    time, peak, risen = json.loads(out)["nets"]
    assert time["direction"] == "forward + backward" and peak["direction"] == "peak memory"
    assert time["peers"]["numpy"] == {"unavailable": "no whole nets"}
    for row in (peak, risen):
        ratio = row["facts"]["bytes of torch"] / row["facts"]["bytes"]
        assert row["peers"]["torch"]["values"] == [ratio]
    assert peak["facts"]["bytes"] > risen["facts"]["bytes"] > 0


def test_a_net_without_a_peer_shows_the_memory_that_it_takes(refnet, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    command = (
        "bench",
        "--arch",
        "resnet18_conv4",
        *SMALL,
        "--dtype",
        "float32",
        "--peers",
        "numpy",
        "--rounds",
        1,
    )
    code, out, err = refnet(*command)
    assert code == 0 and quiet(err)
    assert re.search(r"peak memory: \d+\.\d MiB", out) and "OPENBLAS_CORETYPE is Haswell" in out


def test_torchs_net_computes_every_output_and_gradient():
    peer("torch")
    net = library.build("resnet18_conv4", input=(1, 3, 2, 32, 32), width_per_group=4, freeze_at=3)
    given, dys = fill.params(net) | fill.inputs(net), fill.output_gradients(net)
    theirs, ours = PEERS["torch"].train(1, net, given, dys)(), own.train(net, given, dys)()
    assert theirs.keys() == ours.keys() and "gradient of res4_0_branch2a_w" in ours
    assert "gradient of res3_0_branch2a_w" not in theirs
    for name, value in ours.items():
        bound = measure.rounding_bound(net, "float64")
        assert np.linalg.norm(value - theirs[name]) <= bound * np.linalg.norm(value), name


def test_exact_is_held_against_float64(refnet):
    """Its time over core's and each peer's in float64; what needed integers is counted."""
    command = ("bench", "--arithmetic", "exact", "--peers", "numpy", "--rounds", 2)
    found = json.loads(refnet(*command, "--json")[1])
    assert "convolutions" not in found and "scaling" not in found and len(found["exact"]) == 2 * 2 * 3
    for row in found["exact"]:
        assert row["own"].keys() == {"over core's float64", "over numpy's float64", "in integers, %"}
        assert all(len(row["own"][f"over {name}'s float64"]["values"]) == 2 for name in ("core", "numpy"))
        share = 100 * row["facts"]["undecided"] / row["facts"]["elements"]
        assert row["own"]["in integers, %"]["values"] == [share] and row["peers"] == {}
    sizes = {row["facts"]["elements"] for row in found["exact"] if row["problem"] == TINY[0].name}
    assert sizes == {2 * 4 * 2 * 5 * 4, 2 * 3 * 2 * 5 * 4, 4 * 3}
    code, out, err = refnet(
        "bench", "--arithmetic", "core,exact,reference", "--operators", "--peers", "numpy"
    )
    assert code == 0 and quiet(err) and "copies" in out
    assert "In exact, time or memory over that of others" in out and "In reference, " in out


def test_a_net_in_exact_with_its_memory(refnet):
    command = ("bench", "--arch", "resnet18_conv4", *SMALL, "--arithmetic", "exact", "--dtype", "float32")
    time, peak, risen = json.loads(refnet(*command, "--peers", "numpy", "--rounds", 1, "--json")[1])["exact"]
    net = library.build("resnet18_conv4", input=(1, 3, 1, 32, 32), width_per_group=4)
    given = fill.params(net, dtype="float32") | fill.inputs(net, dtype="float32")
    run = library.forward(net, given, "exact")
    gradients = library.backward(run, fill.output_gradients(net, dtype="float32"))
    both = (*run.fallbacks.values(), *gradients.fallbacks.values())
    assert time["facts"]["undecided"] == sum(count.undecided for of in both for count in of.values())
    assert time["own"].keys() == {"over core's float64", "in integers, %"}
    assert (time["direction"], peak["direction"]) == ("forward + backward", "peak memory")
    for row in (peak, risen):
        ratio = row["facts"]["bytes"] / row["facts"]["bytes of core in float64"]
        assert row["own"] == {"over core's float64": Spread((ratio,)).as_json()}


def test_an_arithmetic_of_ones_own_beside_core(refnet, folder):
    """The process whose memory is measured finds it too."""
    (folder / "mine.py").write_text("from refnet.arithmetic import reference as arithmetic\n")
    few = ("--arithmetic", "mine:arithmetic", "--dtype", "float32", "--peers", "numpy", "--rounds", 1)
    code, out, err = refnet("bench", *few)
    assert code == 0 and quiet(err) and "In mine:arithmetic, time or memory over that of others" in out
    time, peak, risen = json.loads(refnet("bench", "--arch", "resnet18_conv4", *SMALL, *few, "--json")[1])[
        "mine:arithmetic"
    ]
    assert time["own"].keys() == {"over core's float64"} and peak["facts"]["bytes"] > risen["facts"]["bytes"]


def test_a_wrong_arithmetic_is_named_and_nothing_is_timed(untimed, monkeypatch):
    def off(*given, **attrs):
        y, context = exact.kernels["conv3d"].forward(*given, **attrs)
        y.flat[0] += 1
        return y, context

    wrong = exact.replace(conv3d=library.Kernel(off, exact.kernels["conv3d"].backward))
    with pytest.raises(DisagreementError, match="conv3d replaced: tiny & pointwise, forward, float64"):
        arithmetics.operators(wrong, TINY, setting())
    options = {"width_per_group": 4}
    monkeypatch.setattr(arithmetics, "find_arithmetic", {"mine:wrong": wrong}.__getitem__)
    with pytest.raises(DisagreementError, match="exact with conv3d replaced: resnet18_conv4 on"):
        arithmetics.nets("mine:wrong", ["resnet18_conv4"], (1, 3, 1, 32, 32), options, setting())


@pytest.fixture
def reports(refnet, folder):
    """Two reports of the same problems: what was measured in the second is made up by the test."""
    code, out, _ = refnet("bench", "--only", "tiny", "--peers", "numpy", "--rounds", 3, "--json")
    assert code == 0
    (folder / "a.json").write_text(out)

    def second(change):
        report = json.loads(out)
        change(report)
        (folder / "b.json").write_text(json.dumps(report))

    return second


def test_two_reports_are_compared(refnet, reports):
    def change(report):
        times = report["convolutions"][0]["milliseconds"]["refnet"]
        times.update(dict.fromkeys(("least", "median", "most"), 4 * times["most"]))
        report["convolutions"].pop()
        report["machine"]["cpu"] = "another"

    reports(change)
    code, out, err = refnet("bench", "diff", "a.json", "b.json")
    assert (code, err) == (0, "") and "11 times in both, 0 faster, 1 slower" in out
    assert "only in a.json: convolutions, tiny strided, grouped, dw, float32" in out
    assert re.search("cpu is .* in a.json, another in b.json", out) and "bandwidth is" not in out
    assert "chance does that to 1 row in 10." in out and "No verdict" not in out and "busy" not in out
    found = json.loads(refnet("bench", "diff", "b.json", "a.json", "--json")[1])
    assert [row["verdict"] for row in found["rows"]] == ["faster", *[""] * 10]
    assert found["rows"][0]["ratio"] <= 0.25 and found["rows"][1]["ratio"] == 1
    product = np.prod([row["ratio"] for row in found["rows"]])
    assert np.isclose(found["geometric_mean"] ** 11, product)


@pytest.mark.parametrize("rounds", [1, 2])
def test_too_few_rounds_have_no_verdict(refnet, reports, rounds):
    def change(report):
        for row in report["convolutions"]:
            times = row["milliseconds"]["refnet"]
            times.update(dict.fromkeys(("least", "median", "most"), 4 * times["most"]))
        few = report["convolutions"][0]["milliseconds"]["refnet"]
        few["values"] = few["values"][:rounds]

    reports(change)
    out = refnet("bench", "diff", "a.json", "b.json")[1]
    assert "12 times in both, 0 faster, 11 slower" in out
    assert f"No verdict in 1 of them: too few rounds, {rounds}; expected at least 3 in each report" in out
    row = json.loads(refnet("bench", "diff", "b.json", "a.json", "--json")[1])["rows"][0]
    assert row["rounds"] == [rounds, 3] and row["verdict"] == ""


def test_a_report_of_a_busy_machine_is_named(refnet, reports, monkeypatch):
    warning = load.busy(10**6, 1)
    reports(lambda report: report["warnings"].extend([warning, "refnet does 9 GFLOP/s"]))
    code, out, err = refnet("bench", "diff", "a.json", "b.json")
    assert (code, err) == (0, "") and f"b.json: {warning}" in out and "a.json: " not in out
    assert "GFLOP/s" not in out
    assert json.loads(refnet("bench", "diff", "a.json", "b.json", "--json")[1])["busy"] == [
        ["b.json", warning]
    ]
    reports(lambda report: report.update(warnings=3))
    assert refnet("bench", "diff", "a.json", "b.json")[0] == 0


def test_80_columns_have_room_for_both_times_of_a_report(refnet, reports, monkeypatch):
    reports(lambda report: report["convolutions"][0].update(problem=BASE.name, direction="backward"))
    monkeypatch.setenv("COLUMNS", "80")
    out = refnet("bench", "diff", "b.json", "b.json")[1]
    assert re.match(r" problem +direction +dtype +before +after +ratio *\n", out)


def test_what_is_no_report_is_refused_in_one_line(refnet, reports, folder):
    reports(lambda report: report["convolutions"][0].pop("milliseconds"))
    fails(refnet("bench", "diff", "a.json", "b.json"), "b.json has no milliseconds of convolutions")
    reports(lambda report: report["convolutions"][0]["milliseconds"]["refnet"].update(median=0))
    fails(refnet("bench", "diff", "a.json", "b.json"), "milliseconds that are none")
    for content in ("", "[1]", '{"settings": 3}', "NaN", "[" * 10**5):
        (folder / "b.json").write_text(content)
        fails(refnet("bench", "diff", "a.json", "b.json"), "b.json ")
    fails(refnet("bench", "diff", "a.json", "c.json"), "c.json", "No such file")
    fails(refnet("bench", "diff", "a.json", "."), "it is no file")
    fails(refnet("bench", "--rounds", 3, "diff", "a.json", "a.json"), "--rounds is given before diff")


def test_a_busy_machine_is_said_before_and_after(refnet, monkeypatch):
    monkeypatch.setattr(load, "others", lambda since: 3.25)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    few = ("bench", "--only", "pointwise", "--peers", "numpy", "--rounds", 1, "--dtype", "float32")
    code, out, err = refnet(*few, "--threads", 2)
    assert code == 0 and "refnet: the machine is busy: others use 3.2 of 4 processors, load" in err
    assert "Warning: the machine is busy" in out
    assert load.busy(3.25, 1) is None and load.busy(0.25, 4) is None and load.busy(0.75, 4)
    found = json.loads(refnet(*few, "--threads", 2, "--json")[1])
    assert found["machine"]["load"]["others_before"] == 3.25 and len(found["warnings"]) == 1


def test_a_narrow_table_shows_peers_before_refnets_own_share(monkeypatch):
    three = Spread((1.0, 2.0, 3.0))
    row = Measurement(
        BASE.name,
        "forward",
        "float64",
        {"multiply_adds": 1},
        {"share of GEMM": three},
        {"numpy": three, "torch": three},
        {"refnet": three},
    )
    console = Console(width=80, file=io.StringIO())
    (table,) = measured.tables([row])
    console.print(table)
    head, *_, said = console.file.getvalue().splitlines()
    assert head.split() == ["float64", "numpy", "torch"] and "share of GEMM" in said
    (table,) = measured.tables([replace(row, peers={})])
    console.print(table)
    assert "share of GEMM" in console.file.getvalue().splitlines()[-2]


def test_what_others_use_is_what_this_process_does_not(monkeypatch):
    monkeypatch.undo()
    start = load.Moment.now()
    while load.perf_counter() < start.clock + 0.05:
        pass
    now = load.Moment.now()
    assert now.own > start.own and now.everybody >= start.everybody
    assert load.others(load.Moment(now.clock - 10, now.everybody - 30, now.own - 10)) == pytest.approx(2, 0.1)
    assert load.others(load.Moment(now.clock - 10, now.everybody, now.own - 10)) == 0


def test_a_figure_above_the_peak_is_said(monkeypatch):
    monkeypatch.undo()
    machine = {"float32": {"multiply_add_peak": 1e9}}
    times = {"refnet": Spread((0.9,)), "torch": Spread((1.1,))}
    work = {"multiply_adds": 10**9, "useful_multiply_adds": 10**9}
    row = Measurement("a", "forward", "float32", work, {}, {}, times)
    (said,) = measure.exceeding([row, replace(row, facts={})], machine)
    assert said.startswith(
        "refnet does 2 GFLOP/s in a, forward, float32, padding not counted, more than the 2 of"
    )
    left_out = replace(row, facts=work | {"useful_multiply_adds": 0.8 * 10**9})
    assert not list(measure.exceeding([left_out], machine))
    peer_first = replace(row, seconds={"torch": Spread((0.5,))})
    assert "Winograd" in next(measure.exceeding([peer_first], machine)) and "Winograd" not in said


def test_how_long_it_takes_grows_with_what_is_measured():
    few, more = setting(dtypes=("float32",)), setting(PEERS["numpy"], dtypes=("float32", "float64"))
    work = [("core", 1e9, 1e6)]
    times = [
        duration.expected(work, 0, few),
        duration.expected(work * 2, 0, few),
        duration.expected(work * 2, 3, few),
        duration.expected(work * 2, 3, more),
        duration.expected([("exact", 1e12, 1e6)], 3, more),
    ]
    assert sorted(times) == times and len(set(times)) == 5
    assert [duration.text(s) for s in (3, 44, 200, 9000)] == [
        "about 10 seconds",
        "about 40 seconds",
        "about 3 minutes",
        "about 2 hours",
    ]


def test_a_process_that_fails_is_reported():
    recipe = {"architecture": "resnet17", "input": None, "options": {}}
    with pytest.raises(library.errors.RefnetError, match="the process that measures memory ended with 1"):
        measure.peak(recipe | {"dtype": "float32"}, None, 1)


def test_the_peak_is_this_processs_own():
    """Not its parent's, which Linux also counts in ru_maxrss."""
    script = "import numpy; a = numpy.ones(60 << 20, numpy.uint8); from refnet.bench.peak import largest; "
    script += "print(largest())"
    held = np.ones(500 << 20, np.uint8)
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    if sys.platform == "linux":
        assert 60 << 20 < int(printed.stdout) < held.nbytes


def test_mistakes_end_with_2_in_one_line(refnet, tmp_path):
    fails(refnet("bench", "--peers", "tensorflow"), "unknown peer of --peers 'tensorflow'", "onnxruntime")
    fails(refnet("bench", "--peers", ""), "unknown peer of --peers ''")
    fails(refnet("bench", "--threads", 0), "--threads is 0: expected a whole number from 1 to")
    fails(refnet("bench", "--threads", 10**6), "--threads is 1000000")
    fails(refnet("bench", "--rounds", 0), "--rounds is 0")
    fails(refnet("bench", "--rounds", "x"), "'x' is not a whole number")
    fails(refnet("bench", "--dtype", "float16"), "unknown dtype of --dtype 'float16'")
    fails(refnet("bench", "--arithmetic", "quick"), "unknown arithmetic 'quick'", "exact")
    fails(refnet("bench", "--arithmetic", "core,none:at_all"), "there is no module 'none'")
    fails(refnet("bench", "--arithmetic", "exact", "--plot", "a.svg"), "--plot draws what core does")
    fails(refnet("bench", "--only", "2D"), "--only is '2D', in the name of no problem: expected one of tiny")
    fails(refnet("bench", "--only", "Tiny point-wise"), "did you mean tiny & pointwise?")
    fails(refnet("bench", "--only", OTHER[0].name), "in the name of other problems: expected --operators too")
    fails(refnet("bench", "--operators", "--only", "tiny"), "expected it without --operators")
    fails(refnet("bench", "--plot", "a.gif"), "ends in .svg or .png")
    fails(refnet("bench", "--plot", "no/a.svg"), "not a writable folder")
    fails(refnet("bench", "--operators", "--plot", "a.svg"), "expected it without --operators")
    fails(refnet("bench", "--arch", "resnet18_conv4", "--plot", "a.svg"), "expected it without --arch")
    fails(refnet("bench", "--arch", "resnet18_conv4", "--only", "a"), "--arch and --only")
    fails(refnet("bench", "--arch", "resnet17"), "unknown architecture 'resnet17'")
    fails(refnet("bench", "--arch", "resnet18_conv4", "--classes", 3), "classes")
    fails(refnet("bench", "--groups", 2), "--groups is given, but no net")
    fails(refnet("bench", "--input", "1x3x1x32x32"), "--input is given, but no net")
    assert not list(tmp_path.iterdir())


def test_a_peer_that_is_asked_for_must_be_there(refnet, monkeypatch):
    monkeypatch.setitem(PEERS, "absent", Peer("absent", ("no-such-package",), "", numpy_peer.operator))
    fails(refnet("bench", "--peers", "absent,numpy"), "no-such-package is not installed: pip install")
    monkeypatch.setitem(PEERS, "absent", Peer("absent", ("no-such", "nor-such"), "", numpy_peer.operator))
    fails(
        refnet("bench", "--peers", "absent"),
        "no-such and nor-such are not installed: pip install no-such nor",
    )


def test_the_plot_holds_every_problem(refnet, tmp_path):
    peer("matplotlib")
    code, out, err = refnet("bench", "--peers", "numpy", "--rounds", 1, "--plot", "a.svg")
    assert code == 0 and quiet(err) and out.startswith("a.svg: ")
    assert [file.name for file in tmp_path.iterdir()] == ["a.svg"]


def test_the_roofline_names_problems_and_peers_once_a_dtype():
    peer("matplotlib")
    facts = {"multiply_adds": 10**9, "bytes": 10**7}
    cells = {"torch": Spread((2.0,)), "jax": "no such thing"}
    rows = [
        Measurement(problem.name, direction, dtype, facts, {"share of GEMM": Spread((0.5,))}, cells)
        for dtype in ("float64", "float32")
        for problem in CONVOLUTIONS
        for direction in DIRECTIONS
    ]
    limit = {"multiply_add_peak": 2e10, "gemm_rate": {"median": 1e10}}
    machine = {"threads": 2, "cpu": "a <cpu>", "bandwidth": 1e10, "float64": limit, "float32": limit}
    drawn = roofline.drawn(rows, machine)
    assert drawn == roofline.drawn(rows, machine)
    assert roofline.drawn(rows, machine, "png").startswith(b"\x89PNG")
    text = drawn.decode()
    for problem in CONVOLUTIONS:  # matplotlib writes each text as a comment before its outlines
        assert text.count(f"<!-- {problem.name.replace('>', '&gt;')} -->") == 2
    assert text.count("<!-- torch -->") == 1 and "<!-- jax -->" not in text
    assert roofline.intensity(rows[0]) == 200
    assert roofline.rates(rows[0], machine) == {"refnet": 10.0, "torch": 5.0}


def test_spinning_counts_its_multiply_adds():
    lanes = spin(10, "float32") // spin(10, "float64")
    assert spin(10, "float64") > 0 and lanes == 2 and spin(20, "float64") == 2 * spin(10, "float64")


def test_refnet_is_measured_in_the_core_arithmetic():
    inputs, dy = TINY[1].arrays("float64", whole=True)
    found = own.operator(core, TINY[1], inputs, dy)["forward"]()["y"]
    assert np.array_equal(found, core.conv3d.forward(*inputs, **TINY[1].case.attrs)[0])
    assert set(np.unique(inputs[0])) <= {-2, -1, 0, 1, 2}


def test_a_word_after_bench_leads_to_the_option_that_takes_it(refnet):
    fails(refnet("bench", "relu"), "relu is an operator: expected refnet bench --operators --only relu")
    fails(
        refnet("bench", "--arch", "relu"),
        "relu is an operator: expected refnet bench --operators --only relu",
    )
    fails(refnet("bench", "conv3d"), "conv3d is an operator: expected refnet bench")
    fails(refnet("bench", "resnet18_conv4"), "expected refnet bench --arch resnet18_conv4")
    fails(refnet("bench", "--json", "out.json"), "expected refnet bench --json > out.json")
    fails(refnet("bench", "a b.json"), "expected refnet bench --json > 'a b.json'")
    fails(refnet("bench", "dif"), "No such command 'dif'. Did you mean 'diff'?")
    for name in OPS:  # all that is advised is taken
        *_, err = refnet("bench", name)
        command = err.split("expected refnet ")[1].split()
        fails(refnet(*command, "--rounds", "0"), "--rounds is 0")
        assert "--only" not in command or bench.named_problems("--operators" in command, command[-1])

"""What a process does around the kernels: Python threads, forks, signals."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading

import numpy as np
import pytest
from support import CASES, every_case, reals

from refnet._core import blocks, interrupt
from refnet.arithmetic import core
from refnet.environment import errstate

# Whose arithmetic is NumPy's: one pass over memory, or none.
NO_KERNELS = {"stop_gradient", "slice_keyframe"}
NO_KERNELS_BACKWARD = NO_KERNELS | {"add", "global_average_pool", "running_mean", "running_variance"}


def problem(op, case, dtype="float32"):
    arrays = reals(op, case, dtype)
    shape = op.output_shape(tuple(a.shape for a in arrays), case.attrs)
    return arrays, np.random.default_rng(5).standard_normal(shape).astype(dtype)


def computed(op, case, arrays, dy):
    """The bytes of y and of all gradients."""
    y, context = core[op.name].forward(*arrays, **case.attrs)
    return [a.tobytes() for a in (y, *core[op.name].backward(dy, context)) if a is not None]


@every_case
def test_four_python_threads_compute_the_bits_of_the_first(op, case):
    """All at once, each as often as a few; linear had other bits while BLAS computed it."""
    given = {dtype: problem(op, case, dtype) for dtype in ("float32", "float64")}
    expected = {dtype: computed(op, case, *given[dtype]) for dtype in given}
    together, wrong = threading.Barrier(4), []

    def work():
        together.wait()
        for _ in range(3):
            for dtype in given:
                if computed(op, case, *given[dtype]) != expected[dtype]:
                    wrong.append(dtype)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("n", [3, 16])
def test_large_layers_in_python_threads(n):
    """Sizes at which teams of threads start: few samples of linear, and so many that they are packed."""
    rng = np.random.default_rng(0)
    x, w, dy = rng.standard_normal((n, 700)), rng.standard_normal((300, 700)), rng.standard_normal((n, 300))
    image, kernel = rng.standard_normal((1, 16, 2, 28, 28)), rng.standard_normal((32, 16, 3, 3, 3))

    def bits():
        y, context = core.linear.forward(x, w)
        z, of_image = core.conv3d.forward(image, kernel, pad=(1, 1, 1))
        found = (y, *core.linear.backward(dy, context), z, *core.conv3d.backward(z, of_image))
        return [a.tobytes() for a in found if a is not None]

    expected, found = bits(), []
    threads = [threading.Thread(target=lambda: found.append(bits() == expected)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_no_import_of_ours_brings_the_gil_back():
    script = "import sys; import refnet; print(sys._is_gil_enabled())"
    command = [sys.executable, "-W", "error", "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


# A child that fails says how, and one that waits for a lock says where before its alarm ends it.
FORKS = """
import faulthandler, os, signal, sys, threading, traceback, warnings
import numpy as np
from refnet.arithmetic import core
warnings.simplefilter("ignore")  # forking while threads exist is the point
x, w = np.ones((1, 32, 2, 14, 14)), np.ones((32, 32, 1, 3, 3))
a, b = np.ones((16, 300)), np.ones((200, 300))

def work():
    y, context = core.conv3d.forward(x, w, pad=(0, 1, 1))
    core.conv3d.backward(y, context)
    core.relu.forward(np.ones((1, 8, 2, 64, 64)))
    y, context = core.linear.forward(a, b)
    core.linear.backward(y, context)

def in_thread():
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

faulthandler.register(signal.SIGALRM, chain=True)
threading.excepthook = lambda args: os._exit(traceback.print_exception(args.exc_value) or 1)
over = threading.Event()
def go_on(what):
    while not over.is_set():
        what()

threads = [threading.Thread(target=go_on, args=(what,)) for what in (work, in_thread)]
for thread in threads:
    thread.start()
ended = []
for i in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        code = 1
        try:
            (work if i % 2 else in_thread)()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over.set()
for thread in threads:
    thread.join()
print(len(ended), *(f"{i}: {code}" for i, code in enumerate(ended) if code != 0))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_no_fork_while_other_threads_compute_hangs():
    """In the child its first thread computes, or one that it starts: 11 of 150 waited for BLAS.

    Each process forks a few times, for what happens once in a process is done meanwhile.
    """
    env = os.environ | {"OMP_NUM_THREADS": "3"}
    for _ in range(8):
        command = [sys.executable, "-c", FORKS, "8"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500, check=True)
        assert (done.stdout, done.stderr) == ("8\n", "")


FIRST_CALLS = """
import sys
import numpy as np
import refnet
from refnet import golden, gradcheck
from refnet.arithmetic import ARITHMETICS, Kernel, core
from refnet.inputs import fill
from refnet.ops import OPS

class Refuse:
    def find_spec(self, name, path=None, target=None):
        raise AssertionError(f"{what} imports {name}")

rng = np.random.default_rng(0)
sys.meta_path.insert(0, Refuse())
for arithmetic, kernels in ARITHMETICS.items():
    for op in OPS.values():
        case, arrays = op.cases[0], []
        for i, shape in enumerate(case.shapes):
            draw, free = op.domain(i).draw, rng.uniform(-1, 1, shape)
            arrays.append(free if draw is None else draw(free, *case.shapes, **case.attrs))
        what = f"{arithmetic} {op.name}"
        y, context = kernels[op.name].forward(*arrays, **case.attrs)
        kernels[op.name].backward(np.ones_like(y), context)
    what = f"a net in {arithmetic}"
    net = refnet.build("resnet18_conv4", input=(1, 3, 2, 16, 16))
    run = refnet.forward(net, {**fill.params(net), **fill.inputs(net)}, arithmetic)
    refnet.backward(run, fill.output_gradients(net))
what = "golden"
golden.make(sys.argv[1], golden.Recipe("resnet18_conv4", (1, 3, 2, 16, 16)))
golden.verify(sys.argv[1])
golden.diff(sys.argv[1], sys.argv[1])
what = "gradcheck"
given = {**fill.params(net), **fill.inputs(net)}
spoilt = core.replace(relu=Kernel(core.relu.forward, lambda *given: [2 * core.relu.backward(*given)[0]]))
for arithmetic in ("core", spoilt):
    found = gradcheck.check_op("relu", arithmetic=arithmetic), gradcheck.check_net(net, given, arithmetic)
    assert [report.ok for report in found] == [arithmetic == "core"] * 2
for wrong in (1, 2):
    report = gradcheck.check(np.sin, lambda dy, x: wrong * dy * np.cos(x), (np.ones((3, 4)),))
    assert report.ok == (wrong == 1)
print(what, "imports nothing")
"""


def test_a_first_call_imports_nothing(tmp_path):
    """NumPy imports some of itself when it is first asked for: a child that is forked then waits for it."""
    command = [sys.executable, "-c", FIRST_CALLS, str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("gradcheck imports nothing\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_keeps_to_the_thread_that_calls():
    """Also in Python threads that it starts: a team takes locks that somebody may have held at the fork."""
    script = (
        "import os, threading\nfrom refnet.arithmetic.core import runtime\n"
        "def say():\n    print(runtime.threads(), flush=True)\n"
        "say()\nif os.fork() == 0:\n    say()\n"
        "    thread = threading.Thread(target=say)\n    thread.start()\n    thread.join()\n"
        "    os._exit(0)\nos.wait()\n"
    )
    env = os.environ | {"OMP_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() in (["3", "1", "1"], ["1", "1", "1"])  # the latter where there is no OpenMP


@pytest.fixture
def looking():
    """Look for signals after every piece of work, however small."""
    interrupt.look_every(0, 0)
    yield
    interrupt.look_every(interrupt.EVERY, interrupt.INTERVAL)


@every_case
def test_every_operator_looks_for_signals(op, case, looking):
    """Forward, and backward for each gradient: what may take long looks after so much work."""
    if op.name in NO_KERNELS:
        pytest.skip("nothing is computed")
    arrays, dy = problem(op, case)
    before = interrupt.looks()
    _, context = core[op.name].forward(*arrays, **case.attrs)
    forward = interrupt.looks()
    assert forward > before
    core[op.name].backward(dy, context)
    assert interrupt.looks() > forward or op.name in NO_KERNELS_BACKWARD


class StoppedError(Exception):
    pass


# Longer than any test may take, if nobody looks; each is one plane, one row or one sample to the kernel.
LONG = {
    "max_pool3d": ("x = np.ones((1, 1, 1, 1500, 1500))", "core.max_pool3d.forward(x, **POOL)"),
    "max_pool3d backward": (
        "x = np.ones((1, 1500 * 1500)); found = np.zeros((2, x.size), np.intc)",
        "max_pool3d.input_gradient(x, x, x, x.copy(), found, (1, 1500, 1500), WINDOW)",
    ),
    "a window of 2**93 taps": (
        "x = np.ones((1, 1, 1, 4, 4))",
        "core.max_pool3d.forward(x, kernel=(2**31 - 1,) * 3, pad=(2**30,) * 3)",
    ),
    "average_pool3d": ("x = np.ones((1, 1, 1, 1500, 1500))", "core.average_pool3d.forward(x, **POOL)"),
    "average_pool3d backward": (
        "x = np.ones((1, 1500 * 1500)); shares = np.zeros((2, x.size))",
        "average_pool3d.input_gradient(x, x.copy(), shares, (1, 1500, 1500), WINDOW)",
    ),
    "conv3d": (
        "x = np.ones((1, 512, 2, 64, 64)); w = np.ones((256, 512, 7, 7, 7))",
        "core.conv3d.forward(np.tile(x, (1, 1, 4, 1, 1)), w, pad=(3, 3, 3))",
    ),
    "conv3d, sums of windows that have met an infinite weight in the padding": (
        "x = np.ones((1, 64, 1, 1, 200_000)); w = np.ones((16, 64, 1, 7, 7)); w[..., 0, 3] = np.inf",
        "core.conv3d.forward(x, w, pad=(0, 3, 3))",
    ),
    "linear": (
        "x = np.ones((6000, 6000)); w = np.ones((9000, 6000))",
        "[core.linear.forward(x, w) for _ in range(99)]",
    ),
    "roi_align": (
        "x = np.ones((1, 64, 1, 200, 200)); rois = np.tile([0.0, 0, 0, 199, 199], (2000, 1))",
        "core.roi_align.forward(x, rois, output=(64, 64), sampling_ratio=16)",
    ),
}
HEARD = """
import json, signal, sys, time
import numpy as np
from refnet._core import average_pool3d, max_pool3d
from refnet.arithmetic import core

WINDOW = ((1, 2999, 2999), (1, 1, 1), (0, 1499, 1499), (1, 1, 1), (1, 1500, 1500))
POOL = {"kernel": WINDOW[0], "pad": WINDOW[2]}
def stop(number, frame):
    raise TimeoutError

signal.signal(signal.SIGALRM, stop)
for what, (prepare, call) in json.loads(sys.argv[1]).items():
    try:
        exec(prepare)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        start = time.perf_counter()
        exec(call)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("too short:", what)
    except TimeoutError:
        print(f"heard {time.perf_counter() - start - 0.5:.2f} s after: {what}", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_ctrl_c_is_heard_in_the_middle_of_a_kernel():
    """The limit of time detects what never ends; it measures nothing."""
    env = os.environ | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", HEARD, json.dumps(LONG)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=True)
    print(done.stdout)
    assert done.stdout.count("heard") == len(LONG), done.stdout


@pytest.fixture
def stopped():
    """Have a handler raise an exception in a function that goes on: once, so many seconds after its start."""

    def stop(number, frame):
        raise StoppedError

    def run(function, seconds):
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            while True:
                function()
        except StoppedError:
            return
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    before = signal.signal(signal.SIGALRM, stop)
    yield run
    signal.signal(signal.SIGALRM, before)


def test_an_exception_from_a_handler_leaves_no_error_handling_behind(stopped):
    """NumPy's errstate is left set by more than one in four of these."""

    def quietly():
        for _ in range(1000):
            with errstate(over="ignore", divide="raise"):
                pass

    before = np.geterr()
    for i in range(500):
        stopped(quietly, 0.0005 + 1e-7 * i)
        assert np.geterr() == before


def test_error_handling_is_that_of_numpy_and_ends_with_its_context():
    before = np.geterr()
    with errstate(over="raise", divide="ignore"):
        assert np.geterr() == before | {"over": "raise", "divide": "ignore"}
        with errstate(all="ignore"):
            assert set(np.geterr().values()) == {"ignore"}
        with pytest.raises(FloatingPointError):
            np.float64(1e308) * np.full(1, 10.0)
        assert np.geterr() == before | {"over": "raise", "divide": "ignore"}
    assert np.geterr() == before
    with pytest.raises(ValueError, match="nonsense"), errstate(over="nonsense"):
        pass
    assert np.geterr() == before


def test_an_exception_from_a_handler_leaves_nothing_behind(looking, stopped):
    """Neither memory that counts as used, nor a mode, nor a team that cannot compute."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 8, 4, 64, 64)), rng.standard_normal((8, 8, 1, 3, 3))
    cases = [problem(op, case) for op, case in (param.values for param in CASES)]

    def all_of_it():
        y, context = core.conv3d.forward(x, w, pad=(0, 1, 1))
        core.conv3d.backward(y, context)
        for (op, case), given in zip((param.values for param in CASES), cases, strict=True):
            computed(op, case, *given)
        return y.tobytes()

    expected = all_of_it()
    blocks.give_back()
    in_use = blocks.in_use()
    for i in range(60):
        stopped(all_of_it, 0.0005 + 0.0003 * i)
    assert blocks.in_use() == in_use
    assert all_of_it() == expected

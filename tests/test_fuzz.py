"""The fuzzer finds what is planted, reduces it to a test that fails, and finds nothing in what is right."""

import ctypes
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import fuzz
import fuzz_files
import fuzz_operators
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refnet.arithmetic import Kernel, core
from refnet.inputs import clip

OF = ("--only", "operators", "--ops")


def ran(arguments, capsys):
    """The exit code of the fuzzer, and what it says."""
    code = fuzz.main(arguments)
    return code, capsys.readouterr().err


def test_nothing_is_found_among_operators(tmp_path, capsys):
    code, said = ran(["--only", "operators", "--draws", "300", "--found", str(tmp_path)], capsys)
    assert code == 0 and "operators: 300 tried" in said and not list(tmp_path.iterdir())


def test_a_seed_draws_the_same_call():
    first, second = fuzz_operators.draw(7), fuzz_operators.draw(7)
    assert fuzz_operators.test_of(first, 7, "") == fuzz_operators.test_of(second, 7, "")


def test_every_operator_dtype_and_kind_is_drawn():
    drawn = [fuzz_operators.draw(seed) for seed in range(1500)]
    assert {call.op for call in drawn} == set(core)
    assert {call.kind for call in drawn} == set(fuzz_operators.KINDS)
    assert {call.dy.dtype.name for call in drawn} == {"float32", "float64"}


def off_by_one_ulp(y):
    """The last element of many, one unit in the last place further from zero."""
    if y.size >= 100:
        y.reshape(-1)[-1] = np.nextafter(y.reshape(-1)[-1], np.inf, dtype=y.dtype)
    return y


@pytest.mark.parametrize("op", ["affine", "upsample_nearest"])
def test_one_element_off_by_one_ulp_is_found(op, tmp_path, capsys, monkeypatch):
    right = core.kernels[op]

    def forward(*arrays, **attrs):
        y, context = right.forward(*arrays, **attrs)
        return off_by_one_ulp(y), context

    monkeypatch.setattr(fuzz_operators, "core", core.replace(**{op: Kernel(forward, right.backward)}))
    code, said = ran([*OF, op, "--draws", "60", "--found", str(tmp_path)], capsys)
    assert code == 1 and "PASSES" not in said
    (written, *_) = tmp_path.glob("test_*.py")
    (test,) = (f for name, f in runpy.run_path(str(written)).items() if name.startswith("test_"))
    with pytest.raises(AssertionError, match="y: other numbers"):
        test()
    assert "y: other numbers" in written.read_text() and len(written.read_text()) < 20_000
    monkeypatch.undo()
    test()


def test_a_gradient_that_is_a_little_wrong_is_found(tmp_path, capsys, monkeypatch):
    """By 4 in 10^6 of one element, in float32, of values that are no whole numbers."""
    right = core.kernels["linear"]

    def backward(dy, context, needs):
        dx, *rest = right.backward(dy, context, needs)
        if dx is not None and dx.dtype == np.float32:
            dx.reshape(-1)[0] *= np.float32(1 + 4e-6)
        return dx, *rest

    wrong = core.replace(linear=Kernel(right.forward, backward))
    monkeypatch.setattr(fuzz_operators, "core", wrong)
    monkeypatch.setattr(fuzz_operators, "EXACT", set())
    code, said = ran([*OF, "linear", "--draws", "60", "--found", str(tmp_path)], capsys)
    assert code == 1 and "failed" in said and "linear, float32, the gradient of input 0" in said


def test_the_command(tmp_path):
    """As a program: the code, and the seed that is said."""
    script = Path(__file__).with_name("fuzz.py")
    command = [sys.executable, script, "--only", "operators", "--draws", "20", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.startswith("seed 5\n"), done.stderr
    assert subprocess.run([*command, "--only", "x"], capture_output=True).returncode == 2


@pytest.mark.parametrize("part", ["bundles", "parameters", "clips", "candidates"])
def test_nothing_is_found_among_files(part, tmp_path, capsys):
    code, said = ran(["--only", part, "--draws", "20", "--found", str(tmp_path)], capsys)
    assert code == 0 and f"{part}: 20 tried" in said and ": 2 " in said


def test_what_is_not_mutated_is_taken():
    """But for a stream without a decoder; of candidates, which are a part of what there is, 1 is said too."""
    for part in ("parameters", "clips", "candidates"):
        trials = list(fuzz_files.SOURCES[part]())
        for trial, (code, problem) in zip(trials, fuzz_files.outcomes(trials), strict=True):
            expected = (0, 1) if part == "candidates" else (2 if "c.svg" in trial.files else 0,)
            assert problem is None and code in expected, (trial.command, code, problem)


def test_a_reader_that_raises_is_found_and_reduced(tmp_path, capsys, monkeypatch):
    def raises(path):
        raise ValueError("planted")

    monkeypatch.setattr(clip, "_array", raises)
    code, said = ran(["--only", "clips", "--draws", "80", "--found", str(tmp_path)], capsys)
    assert code == 1 and "PASSES" not in said and "clips, ValueError in test_fuzz.py, raises" in said
    (written,) = tmp_path.iterdir()
    (test,) = (f for name, f in runpy.run_path(str(written)).items() if name.startswith("test_"))
    with pytest.raises(AssertionError, match="planted"):
        test()
    monkeypatch.undo()
    test()


BEGINNINGS = (
    *(b"", b"{}", b"[[1]]", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04"),
    b"\2" + bytes(7) + b"{}",
)


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=60), st.integers(0, 2**32))
def test_whatever_is_mutated_can_be_mutated_again(start, rest, seed):
    for mutate in {*fuzz_files.BY_ENDING.values(), *fuzz_files.BYTES}:
        data, rng = start + rest, np.random.default_rng(seed)
        for _ in range(3):
            data = mutate(rng, data)
            assert isinstance(data, bytes)


def crash(arguments):
    ctypes.string_at(0)


def wait(arguments):
    time.sleep(60)


def much(arguments):
    bytearray(1 << 31)


def litter(arguments):
    Path("left").write_text("")
    return 0


def escapes(arguments):
    print("\x1b[2J")
    return 0


def two_lines(arguments):
    print("refnet: a\nrefnet: b", file=sys.stderr)
    return 2


def other_code(arguments):
    os._exit(3)


@pytest.mark.parametrize(
    ("planted", "word"),
    [
        *((crash, "crashes"), (wait, "hangs"), (much, "raises"), (litter, "leaves")),
        *((escapes, "control"), (two_lines, "other than one line"), (other_code, "crashes, status 3")),
    ],
)
def test_every_end_that_is_not_allowed_is_seen(planted, word, monkeypatch):
    """Of the second of three commands; the others are tried all the same."""
    right = fuzz_files._run
    monkeypatch.setattr(
        fuzz_files, "_run", lambda arguments: (planted if "wrong" in arguments else right)(arguments)
    )
    trials = [
        fuzz_files.Trial({"a": b""}, command) for command in (("--version",), ("wrong",), ("--version",))
    ]
    first, (_, problem), last = fuzz_files.outcomes(trials, seconds=2)
    assert word in problem and first == last == (0, None), (first, problem, last)

"""Mutated files of every kind that refnet reads, each given to a command in a child process.

A command may succeed, say that a check has failed (1), or refuse what it was given in one line (2). It may
not raise, crash, wait, take more memory than there is, leave files behind, or print what controls a terminal.
"""

import atexit
import base64
import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pictures
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

import refnet
from refnet import cli, golden
from refnet.errors import RefnetError

SMALL = golden.Recipe(
    "resnet18_conv4", (1, 3, 1, 16, 16), {"width_per_group": 1, "time_kernel": 1}, dtype="float32"
)
MAKE = ("--width-per-group", "1", "--time-kernel", "1")
# Beyond what the process has mapped when it begins, and for how long a command may work.
MEMORY, SECONDS = 1 << 30, 60
BATCH = 40


@dataclass(frozen=True)
class Trial:
    """Files, by their names, and the command that reads them; {full} and {hashes} are good bundles."""

    files: dict
    command: tuple


# What is mutated.


@cache
def good():
    """The folder of bundles of one network, one of hashes only; it goes with this process."""
    folder, owner = Path(tempfile.mkdtemp(prefix="fuzz-")), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    golden.make(folder / "full", SMALL)
    golden.make(folder / "hashes", SMALL, hashes_only=True)
    golden.make(folder / "rounded", replace(SMALL, dtype="float64", store="float32"), only=["outputs"])
    net = SMALL.net()
    run = refnet.forward(net, refnet.fill.params(net) | refnet.fill.inputs(net))
    run.save(folder / "run", refnet.backward(run, refnet.fill.output_gradients(net)))
    return folder


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def bundles():
    for name in ("full", "hashes", "rounded", "run"):
        files = {f"m/{file}": data for file, data in content(good() / name).items()}
        yield Trial(files, ("golden", "verify", "m"))
        yield Trial(files, ("golden", "verify", "m", "--json"))
        yield Trial(files, ("golden", "diff", "m", "{full}"))
        yield Trial(files, ("golden", "diff", "{hashes}", "m"))
        yield Trial(files, ("golden", "show", "m"))
        yield Trial(files, ("golden", "show", "m", "d data", "--json"))
        yield Trial(files, ("certify", "m", "{full}"))
        yield Trial(files, ("certify", "{hashes}", "m", "--html", "out.html"))
        yield Trial(
            files, ("golden", "make", "resnet18_conv4", "m", "--force", "--input", "1x3x1x16x16", *MAKE)
        )


def parameters():
    content = (good() / "full" / "params.safetensors").read_bytes()
    file = io.BytesIO()
    np.savez(file, **load_safetensors(content))
    for name, data in (("p.safetensors", content), ("p.npz", file.getvalue())):
        make = ("golden", "make", "resnet18_conv4", "out", "--input", "1x3x1x16x16", "--hashes-only", *MAKE)
        yield Trial({name: data}, (*make, "--params", name))


@cache
def clip_files():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 16, 16, 3)).astype("uint8")
    encoded = pictures.encoded

    def saved(save, *arrays):
        file = io.BytesIO()
        save(file, *arrays)
        return file.getvalue()

    png = pictures.png(frames[0])
    found = {
        "c.png": png,
        "exif.png": pictures.png_with(png, (b"eXIf", pictures.exif(6)), (b"tEXt", b"Title\0t\xe9")),
        "c.bmp": encoded(frames[:1], muxer="image2pipe", codec="bmp", stored="bgr24"),
        "c.jpg": pictures.jpeg_with_exif(
            encoded(frames[:1], muxer="image2pipe", codec="mjpeg", stored="yuvj444p"), pictures.exif(3)
        ),
        "c.webp": encoded(frames[:1], muxer="webp", codec="libwebp", stored="yuv420p"),
        "c.gif": encoded(frames, muxer="gif", codec="gif", stored="rgb8"),
        "c.apng": encoded(frames, muxer="apng", codec="apng"),
        "c.tiff": pictures.tiff(frames[0], 6),
        "c.ppm": encoded(frames[:1], muxer="image2pipe", codec="ppm"),
        "c.mp4": pictures.with_matrix(pictures.mp4(frames), (0, 1, -1, 0)),
        "mpeg4.mp4": encoded(frames, muxer="mp4", codec="mpeg4", stored="yuv420p", title="clip"),
        "c.mkv": encoded(frames, muxer="matroska", codec="ffv1", stored="bgr0", title="clip"),
        "c.avi": encoded(frames, muxer="avi", codec="mjpeg", stored="yuvj420p"),
        "frames.npy": saved(np.save, frames),
        "blob.npy": saved(np.save, rng.standard_normal((1, 3, 2, 16, 16))),
        "frames.npz": saved(np.savez, frames),
        "blob.npz": saved(np.savez_compressed, rng.standard_normal((1, 3, 2, 16, 16))),
        "c.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
    }
    return [({name: data}, name) for name, data in found.items()] + [
        ({"f/1.png": png, "f/2.png": pictures.png(frames[1])}, "f")
    ]


def clips():
    for files, name in clip_files():
        trace = ("trace", "resnet18_conv4", "--clip", name, "--frames", "2" if name == "f" else "1", *MAKE)
        yield Trial(files, trace)
        if "blob" not in name:
            yield Trial(files, (*trace, "--size", "16x16", "--json"))
            yield Trial(
                files,
                (
                    *("golden", "make", "resnet18_conv4", "out", "--clip", name),
                    *("--frames", "1", "--size", "16x16", "--hashes-only", *MAKE),
                ),
            )


def candidates():
    arrays = {}
    for section, start in (("blobs", "blob/"), ("gradients", "grad/"), ("output_gradients", "dY/")):
        found = load_safetensors((good() / "full" / f"{section}.safetensors").read_bytes())
        arrays |= {start + name: found[name] for name in sorted(found, key=lambda n: found[n].size)[:6]}
    npz, kinds = io.BytesIO(), {}
    np.savez(npz, **arrays)
    kinds["c.npz"] = {"c.npz": npz.getvalue()}
    kinds["c.safetensors"] = {"c.safetensors": save_safetensors(arrays)}
    kinds["npy"] = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        kinds["npy"][f"npy/{name}.npy"] = file.getvalue()
    if find_spec("onnx"):
        from onnx import numpy_helper

        kinds["pb"] = {
            f"pb/{i}.pb": numpy_helper.from_array(array, name).SerializeToString()
            for i, (name, array) in enumerate(arrays.items())
        }
    for name, files in kinds.items():
        yield Trial(files, ("certify", "{hashes}", name))
        yield Trial(files, ("certify", "{hashes}", name, "--json", "--all"))
        yield Trial(files, ("certify", "{hashes}", name, "--html", "out.html", "--operands", "tf32"))


def models():
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        return
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    w = numpy_helper.from_array(np.ones((2, 3, 1, 3, 3), "float32"), "w")
    shape = (1, 3, 1, 8, 8)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["data", "w"], ["conv1"], pads=[0, 1, 1, 0, 1, 1]),
            helper.make_node("Relu", ["conv1"], ["relu"]),
        ],
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("relu", TensorProto.FLOAT, (1, 2, 1, 8, 8))],
        [w],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    yield Trial({"m.onnx": model.SerializeToString()}, ("capture", "m.onnx"))


SOURCES = {source.__name__: source for source in (bundles, parameters, clips, candidates, models)}


# How it is mutated.

NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
TEXTS = (
    "",
    "\x1b[2J\x1b[1;1Hverified",
    "a\nb\rc\td",
    "\u202eabc\u0085",
    "\x00",
    "\x7f\x9b31m",
    "x" * 5000,
    "../../etc/passwd",
    "/dev/zero",
    "NaN",
    "\ud800",
    "float64",
    "conv1",
)
VALUES = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    0.5,
    -0.0,
    1e308,
    10**400,
    *NUMBERS,
    *TEXTS,
    ["a", 1],
    [1, 3, 1, 16, 16],
    [2**31, 2**31],
    [-1, 3],
    [0],
    [1] * 40,
)


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def place(rng, data):
    """Somewhere in it; every other time near the beginning or the end."""
    n = max(1, len(data))
    return int(
        (rng.integers(n), rng.integers(min(n, 200)), n - 1 - rng.integers(min(n, 100)))[rng.integers(3)]
    )


def flip(rng, data):
    at = place(rng, data)
    return data[:at] + bytes(b ^ (1 << int(rng.integers(8))) for b in data[at : at + 1]) + data[at + 1 :]


def byte(rng, data):
    at = place(rng, data)
    return data[:at] + bytes([pick(rng, (0, 1, 0x7F, 0x80, 0xFF, 0x1B, 0x0A))]) + data[at + 1 :]


def cut(rng, data):
    return data[: place(rng, data)]


def without(rng, data):
    at = place(rng, data)
    return data[:at] + data[at + int(rng.integers(1, 64)) :]


def insert(rng, data):
    at = place(rng, data)
    return data[:at] + rng.bytes(int(pick(rng, (1, 4, 64, 5000)))) + data[at:]


def duplicate(rng, data):
    at, n = place(rng, data), int(pick(rng, (1, 8, 64, 512)))
    return data[:at] + data[at : at + n] * int(pick(rng, (2, 3, 50))) + data[at + n :]


def swap(rng, data):
    a, b = sorted((place(rng, data), place(rng, data)))
    n = int(pick(rng, (1, 4, 32)))
    return data[:a] + data[b : b + n] + data[a + n : b] + data[a : a + n] + data[b + n :]


def length(rng, data):
    """A number in place of one that may say how long something is."""
    at, size, order = place(rng, data), int(pick(rng, (1, 2, 4, 8))), pick(rng, ("little", "big"))
    number = pick(rng, (*NUMBERS, len(data), len(data) + 1)) % 256**size
    return data[:at] + number.to_bytes(size, order) + data[at + size :]


def fill(rng, data):
    at, n = place(rng, data), int(pick(rng, (4, 16, 256)))
    return data[:at] + bytes([pick(rng, (0, 255))]) * n + data[at + n :]


def nothing(rng, data):
    return b""


BYTES = (flip, byte, cut, without, insert, duplicate, swap, length, length, fill, flip, byte, nothing)


def of_bytes(rng, data):
    return pick(rng, BYTES)(rng, data)


def of_json(rng, data):
    """One value, key or part of a JSON text."""
    try:
        tree = json.loads(data)
    except ValueError:
        return of_bytes(rng, data)
    holders = list(walk(tree))
    if not holders:
        return of_bytes(rng, data)
    # Few are near the root, and most lists are alike: choose a depth first.
    depth = pick(rng, sorted({d for d, _, _ in holders}))
    _, holder, key = pick(rng, [h for h in holders if h[0] == depth])
    action = rng.integers(6)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[pick(rng, TEXTS)] = holder.pop(key)
    elif action == 2:
        _, other, there = pick(rng, holders)
        holder[key], other[there] = json.loads(json.dumps(other[there])), json.loads(json.dumps(holder[key]))
    elif action == 3:
        holder[key] = json.loads("[" * 40 + "]" * 40)
    else:
        holder[key] = pick(rng, VALUES)
    text = json.dumps(tree, ensure_ascii=bool(rng.integers(2)))
    if rng.integers(12) == 0:  # a key twice
        text = text.replace("{", '{"recipe": 1, "dtype": "F32", ', 1)
    return text.encode("utf-8", "surrogatepass")


def walk(tree, depth=0):
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield depth, tree, key
        yield from walk(value, depth + 1)


def of_safetensors(rng, data):
    """Its header, with the length that it then has."""
    n = int.from_bytes(data[:8], "little")
    if not 0 < n <= len(data) - 8 or rng.integers(4) == 0:
        return of_bytes(rng, data)
    header = (of_json if rng.integers(3) else of_bytes)(rng, data[8 : 8 + n])
    return len(header).to_bytes(8, "little") + header + data[8 + n :]


def of_npy(rng, data):
    """A word of its header, which stays as long as it says."""
    if data[:6] != b"\x93NUMPY" or rng.integers(3) == 0:
        return of_bytes(rng, data)
    n = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + n].decode("latin-1")
    words = ("(3, 16, 16, 3)", "(1, 3, 2, 16, 16)", "|u1", "<f8", "<f4", "False", "'shape'", "'descr'", ",")
    others = (
        *(
            "(2**40,)",
            "(1099511627776, 3)",
            "(-1, 3)",
            "(0, 16, 16, 3)",
            "(3, 0, 16, 3)",
            "(3, 16, 16, 3, 1)",
        ),
        *(
            "|O",
            "|V2",
            "<c8",
            "<f2",
            ">f8",
            "<U99999999",
            "<M8[s]",
            "[('a', '<f8')]",
            "True",
            "'x'",
            "((" * 40,
        ),
        *("1" * 3000, "((3,), 16)", "(1.5, 3)", "(True, 16, 16, 3)", "\x1b[2J", "("),
    )
    header = header.replace(pick(rng, words), pick(rng, others), 1).rstrip("\n ") + "\n"
    header = header.ljust(n) if rng.integers(2) else " " * int(pick(rng, (0, 9000, 60000))) + header
    content = header.encode("latin-1")
    return data[:8] + min(len(content), 65535).to_bytes(2, "little") + content + data[10 + n :]


def of_npz(rng, data):
    """A member, stored again with the checksum that it then has; or its name."""
    if rng.integers(3) == 0:
        return of_bytes(rng, data)
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return of_bytes(rng, data)
    if not members:
        return of_bytes(rng, data)
    chosen = pick(rng, list(members))
    action = rng.integers(5)
    kind = pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(out, "w", kind) as archive,
        contextlib.suppress(ValueError, UnicodeError),
    ):
        warnings.simplefilter("ignore")  # one name twice is what is wanted
        for name, member in members.items():
            if name == chosen and action == 0:
                name = pick(rng, TEXTS[1:]) + ".npy"
            elif name == chosen and action == 1:
                continue
            elif name == chosen:
                member = of_npy(rng, member)
            archive.writestr(name.replace("\0", "0"), member)
        if action == 2:
            archive.writestr("more.npy", pick(rng, list(members.values())))
    return out.getvalue()


def of_png(rng, data):
    """A chunk, with the checksum that it then has."""
    if data[:4] != b"\x89PNG" or rng.integers(3) == 0:
        return of_bytes(rng, data)
    chunks, at = [], 8
    while at + 12 <= len(data):
        (n,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + n]))
        at += 12 + n
    if not chunks:
        return of_bytes(rng, data)
    i = int(rng.integers(len(chunks)))
    name, body = chunks[i]
    action = rng.integers(5)
    if action == 0:
        chunks[i:i] = [chunks[i]] * int(pick(rng, (1, 3)))
    elif action == 1:
        del chunks[i]
    elif action == 2 and name == b"IHDR":
        sizes = [int(pick(rng, (0, 1, 16, 30000, 65535, 2**24, 2**31 - 1))) for _ in range(2)]
        chunks[i] = (name, struct.pack(">II", *sizes) + body[8:])
    else:
        chunks[i] = (name, of_bytes(rng, body))
    return data[:8] + b"".join(pictures.png_chunk(*chunk) for chunk in chunks)


BY_ENDING = {
    ".json": of_json,
    ".safetensors": of_safetensors,
    ".npy": of_npy,
    ".npz": of_npz,
    ".png": of_png,
    ".apng": of_png,
}


def mutated(trial, steps):
    """A trial after some steps, each of a file and a seed."""
    files = dict(trial.files)
    for name, seed in steps:
        if name in files:
            rng = np.random.default_rng(seed)
            action = rng.integers(40)
            if action == 0 and len(files) > 1:
                del files[name]
            else:
                files[name] = BY_ENDING.get(Path(name).suffix, of_bytes)(rng, files[name])
    return replace(trial, files=files)


def drawn(trials, seed):
    """The trial of a seed, and the steps that make it: one to four, most in one file."""
    rng = np.random.default_rng(seed)
    trial = pick(rng, trials)
    names = list(trial.files)
    first = names[0] if rng.integers(3) else pick(rng, names)
    if "m/manifest.json" in trial.files and rng.integers(3):
        first = "m/manifest.json"
    count = pick(rng, (1, 1, 1, 2, 3, 4))
    steps = [(first if rng.integers(4) else pick(rng, names), int(rng.integers(2**62))) for _ in range(count)]
    return trial, steps


# What becomes of it.


def outcomes(trials, memory=MEMORY, seconds=SECONDS):
    """Of each trial (exit code, None), or (_, what it may not do); many in one child, for they are short."""
    good()
    at = 0
    while at < len(trials):
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            reader, writer = os.pipe()
            sys.stdout.flush()
            sys.stderr.flush()
            child = os.fork()
            if child == 0:
                os.close(reader)
                _serve(trials[at:], Path(folder), writer, memory)
            os.close(writer)
            answers = _answers(reader, seconds)
            told = 0
            for code, problem in answers:
                told += 1
                yield code, problem
            os.close(reader)
            hangs = told < len(trials) - at and _alive(child)
            if hangs:
                os.kill(child, signal.SIGKILL)
            status = _ended(child)
        at += told
        if at < len(trials):
            why = f"hangs for {seconds} s" if hangs else f"crashes, status {status}"
            yield None, why
            at += 1


def _alive(child):
    """Whether it still runs a moment after it has stopped to answer."""
    for _ in range(20):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.05)
    return True


def _ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _answers(reader, seconds):
    pending = b""
    while True:
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            yield json.loads(line)
        if not select.select([reader], [], [], seconds)[0]:
            return
        more = os.read(reader, 1 << 16)
        if not more:
            return
        pending += more


def _serve(trials, folder, writer, memory):
    """In a child: try one after the other, and write down what becomes of it."""
    try:
        faulthandler.disable()  # a crash is told by its status
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        out, err = ((folder / name).open("w+b") for name in ("out", "err"))
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        for i, trial in enumerate(trials):
            place = folder / str(i)
            result = _tried(trial, place, out, err)
            os.write(writer, json.dumps(result).encode() + b"\n")
            os.chdir(folder)
            shutil.rmtree(place, ignore_errors=True)
    except BaseException:
        os.write(
            writer, json.dumps((None, f"raises beside the command {traceback.format_exc()}")).encode() + b"\n"
        )
    finally:
        os._exit(0)


def _tried(trial, place, out, err):
    place.mkdir()
    for name, data in trial.files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    before = {str(file.relative_to(place)) for file in place.rglob("*")}
    os.chdir(place)
    tempfile.tempdir = str(place)
    for stream in (out, err):
        os.ftruncate(stream.fileno(), 0)
        os.lseek(stream.fileno(), 0, os.SEEK_SET)
    sys.stdout = io.TextIOWrapper(io.FileIO(os.dup(1), "w"), encoding="utf-8", errors="strict")
    sys.stderr = io.TextIOWrapper(
        io.FileIO(os.dup(2), "w"), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    try:
        code = _run([argument.format_map(_Bundles()) for argument in trial.command])
    except BaseException:
        return None, "raises " + traceback.format_exc(limit=-3)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    left = {str(file.relative_to(place)) for file in place.rglob("*")} - before
    left = {name for name in left if name.split("/")[0] not in ("out", "out.html", "m")}
    said, refused = (os.pread(stream.fileno(), 1 << 24, 0).decode() for stream in (out, err))
    problem = _problem(trial, code, said, refused)
    return code, problem or (f"leaves {sorted(left)}" if left else None)


class _Bundles(dict):
    def __missing__(self, name):
        return str(good() / name)


def _run(arguments):
    if arguments[0] == "capture":
        from refnet.interop import onnx

        try:
            onnx.capture(arguments[1], np.ones((1, 3, 1, 8, 8), "float32"))
        except RefnetError:
            return 2
        return 0
    sys.argv = ["refnet", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code


def _problem(trial, code, said, refused):
    """What is wrong with how a command has ended."""
    if trial.command[0] == "capture":
        return None  # the runtime prints what it likes
    if code not in (0, 1, 2):
        return f"ends with {code}"
    controls = [c for c in said + refused if not (c.isprintable() or c == "\n")]
    if controls:
        return f"prints control characters {controls[:3]!r}"
    if code != 2 and refused:
        return f"ends with {code} and says {refused[:300]!r}"
    if code == 2 and not (
        refused.startswith("refnet: ") and refused.count("\n") == 1 and refused.endswith("\n")
    ):
        return f"refuses in other than one line: {refused[:300]!r}"
    if code == 2 and "out of memory" in refused:
        return "runs out of memory"
    return None


# Reduction, and the loop.


def tries(trial):
    """Raise AssertionError where a trial ends as none may; for tests of single trials."""
    ((_, problem),) = outcomes([trial])
    assert problem is None, problem


def reduced(trial, steps, problem):
    """As few of the steps as fail in the same way."""
    kind = kind_of(problem)
    for i in reversed(range(len(steps))):
        fewer = steps[:i] + steps[i + 1 :]
        ((_, found),) = outcomes([mutated(trial, fewer)])
        if found and kind_of(found) == kind:
            steps = fewer
    return mutated(trial, steps)


def kind_of(problem):
    """Of an exception its class and where it was raised; else how the problem begins."""
    if not problem.startswith("raises"):
        return " ".join(problem.split()[:4])
    *_, (file, function) = re.findall(r'File "(?:.*/)?(.+)", line [0-9]+, in (.+)', problem)
    return f"{problem.strip().splitlines()[-1].split(':')[0]} in {file}, {function}"


def test_of(trial, seed, problem):
    """The text of a test that fails as the trial does."""
    files = "".join(
        f"            {name!r}: unpacked(\n                {base64.b64encode(zlib.compress(data, 9))!r}\n"
        "            ),\n"
        for name, data in trial.files.items()
    )
    return (
        f'"""Found by tests/fuzz.py, seed {seed}."""\n\n'
        "from fuzz_files import Trial, tries, unpacked\n\n\n"
        "def test_files():\n"
        f"    # {' '.join(problem.split())[:1000]!r}\n"
        f"    trial = Trial(\n        files={{\n{files}        }},\n"
        f"        command={trial.command!r},\n    )\n"
        "    tries(trial)\n"
    )


def unpacked(text):
    return zlib.decompress(base64.b64decode(text))


def fuzz(part, effort, found, say):
    """Mutate files of one part; how often it ended with which code, by the kind of file."""
    trials, counts, batch = list(SOURCES[part]()), Counter(), []
    if not trials:
        say(f"{part}: the packages for it are not installed")
        return counts

    def finish():
        made = [(seed, trial, steps, mutated(trial, steps)) for seed, trial, steps in batch]
        ends = outcomes([wrong for *_, wrong in made])
        for (seed, trial, steps, _), (code, problem) in zip(made, ends, strict=True):
            ending = (
                Path(next(iter(trial.files))).suffix if part != "bundles" else " ".join(trial.command[:2])
            )
            counts[f"{ending}: {code if problem is None else 'failed'}"] += 1
            if problem:
                found.keep(
                    f"{part}, {kind_of(problem)}",
                    lambda: test_of(reduced(trial, steps, problem), seed, problem),  # noqa: B023
                )
        batch.clear()
        say(f"{part}: {sum(counts.values())} files, {sum(found.kinds.values())} failures")

    for seed in effort.seeds():
        batch.append((seed, *drawn(trials, seed)))
        if len(batch) == BATCH:
            finish()
    if batch:
        finish()
    return counts

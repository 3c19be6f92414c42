"""Candidates from disk: every format holds the same arrays, names find their place, damage is one line."""

import io
import json
import os
import struct
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support import peer

import refnet
from refnet import golden, memory
from refnet.errors import FileError, TooLargeError, printable
from refnet.golden.candidate import given, read
from refnet.inputs import candidate, safetensors_file, tensor_files
from refnet.networks.resnet3d import body

NET = body((1, 3, 2, 16, 16), (1,), (4, 4), width_per_group=2, freeze_at=0, time_kernel=1)
RNG = np.random.default_rng(0)
CASES = sorted((Path(__file__).parent / "cases").rglob("*.npz"))
ARRAYS = {
    "blob/conv1": RNG.standard_normal(NET.shape("conv1")).astype("float32"),
    "res2_0_sum": RNG.standard_normal(NET.shape("res2_0_sum")),
    "dblob/conv1": RNG.standard_normal(NET.shape("conv1")).astype("float16"),
    "grad/conv1_w": RNG.standard_normal(NET.shape("conv1_w")).astype("float32"),
    "d res2_0_sum": RNG.standard_normal(NET.shape("res2_0_sum")).astype("float32"),
    "d data": RNG.standard_normal(NET.shape("data")).astype("float32"),
    "dY/res2_0_relu": RNG.standard_normal(NET.shape("res2_0_relu")).astype("float32"),
    "input/data": RNG.integers(-9, 9, NET.shape("data")),
    "param/conv1_w": RNG.standard_normal(NET.shape("conv1_w")).astype("float32"),
    "res_conv1_bn_s": np.asfortranarray(RNG.standard_normal(NET.shape("res_conv1_bn_s"))),
}
PLACES = {
    "blobs": {"conv1": "blob/conv1", "res2_0_sum": "res2_0_sum"},
    "gradients": {"conv1_w": "grad/conv1_w", "data": "d data"},
    "blob_gradients": {"conv1": "dblob/conv1", "res2_0_sum": "d res2_0_sum"},
    "output_gradients": {"res2_0_relu": "dY/res2_0_relu"},
    "given": {"data": "input/data", "conv1_w": "param/conv1_w", "res_conv1_bn_s": "res_conv1_bn_s"},
}


def npz(folder, arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def compressed(folder, arrays):
    np.savez_compressed(folder / "a.npz", **arrays)
    return folder / "a.npz"


def safetensors(folder, arrays):
    save_file(
        {name: np.asarray(array, order="C") for name, array in arrays.items()}, folder / "a.safetensors"
    )
    return folder / "a.safetensors"


def npys(folder, arrays):
    for name, array in arrays.items():
        file = folder / "dump" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)
    return folder / "dump"


def protos(folder, arrays):
    helper = peer("onnx").numpy_helper
    (folder / "dump").mkdir()
    for i, (name, array) in enumerate(arrays.items()):
        tensor = helper.from_array(np.asarray(array, order="C"), name)
        (folder / "dump" / f"output_{i}.pb").write_bytes(tensor.SerializeToString())
    return folder / "dump"


FORMATS = [npz, compressed, safetensors, npys, protos]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_holds_the_same(write, tmp_path):
    found = read(write(tmp_path, ARRAYS), NET)
    for part, names in PLACES.items():
        arrays = getattr(found, part)
        assert arrays.keys() == names.keys()
        for name, whole in names.items():
            assert arrays[name].dtype == ARRAYS[whole].dtype
            assert np.array_equal(arrays[name], ARRAYS[whole])


@pytest.mark.parametrize("write", FORMATS)
def test_bfloat16_comes_back_as_its_values(write, tmp_path):
    bits = np.arange(1 << 16, dtype=np.uint16)
    array = bits.view(peer("ml_dtypes").bfloat16).reshape(256, 128, 2)
    found = tensor_files.read(write(tmp_path, {"x": array}))["x"]
    assert found.dtype == np.float32 and found.shape == array.shape
    assert np.array_equal(
        found, (bits.astype(np.uint32) << 16).view(np.float32).reshape(array.shape), equal_nan=True
    )


@pytest.mark.parametrize("write", [npz, safetensors])
def test_bfloat16_needs_no_package(write, tmp_path, monkeypatch):
    path = write(tmp_path, {"x": np.array([1.5, -2], peer("ml_dtypes").bfloat16)})
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert tensor_files.read(path)["x"].tolist() == [1.5, -2]


@pytest.mark.parametrize("write", FORMATS)
def test_shapes_without_and_with_a_few_values(write, tmp_path):
    arrays = {"loss": np.array(2.5, np.float32), "none": np.zeros((2, 0, 3)), "true": np.array([True])}
    found = tensor_files.read(write(tmp_path, arrays))
    assert {k: (v.shape, v.dtype.name) for k, v in found.items()} == {
        k: (v.shape, v.dtype.name) for k, v in arrays.items()
    }


def test_a_tensor_without_a_name_has_that_of_its_file(tmp_path):
    helper = peer("onnx").numpy_helper
    (tmp_path / "blob").mkdir()
    for name in ("blob/conv1", "pool1"):
        (tmp_path / f"{name}.pb").write_bytes(helper.from_array(np.ones(2)).SerializeToString())
    found = candidate.read(tmp_path, NET)
    assert found.blobs.keys() == {"conv1", "pool1"}


def test_a_folder_may_hold_other_files_too(tmp_path):
    path = npys(tmp_path, {"conv1": np.ones(2)})
    (path / "notes.txt").write_text("dumped on Tuesday")
    (path / "deep" / "deeper").mkdir(parents=True)
    assert candidate.read(path, NET).blobs.keys() == {"conv1"}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases_are_read_as_they_are(path):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "meta"}
    given_names = {name.split("/")[1]: a.shape for name, a in arrays.items() if name.startswith("param/")}
    net = refnet.Net()
    net.input("data", (1, 3, 2, 16, 16))
    for name, shape in given_names.items():
        net.param(name, shape)
    found = candidate.read(path, net)
    parts = (found.blobs, found.gradients, found.blob_gradients, found.output_gradients, found.given)
    assert sum(map(len, parts)) == len(arrays)
    for name, array in arrays.items():
        section, _, rest = name.partition("/")
        match section:
            case "blob":
                place = found.blobs
            case "dblob":
                place = found.blob_gradients
            case "grad":
                place = found.gradients if rest in given_names or rest == "data" else found.blob_gradients
            case "dY":
                place = found.output_gradients
            case "param" | "input":
                place = found.given
            case _:
                place, rest = found.blobs, name
        assert np.array_equal(place[rest], array)


# Bundles.


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    recipe = golden.Recipe(
        "resnet18_conv4", (1, 3, 1, 32, 32), {"width_per_group": 4, "time_kernel": 1}, dtype="float32"
    )
    return [golden.make(folder / str(hashes), recipe, hashes_only=hashes) for hashes in (False, True)]


def test_a_bundle_is_a_candidate(bundles):
    whole, hashes = bundles
    net = whole.recipe.net()
    found = read(whole.path, net)
    start = given(whole, net)
    assert found.blobs.keys() == {node.name for node in net.nodes}
    assert found.gradients.keys() == whole.entries["gradients"].keys() and not found.blob_gradients
    for name, array in (start["inputs"] | start["params"]).items():
        assert np.array_equal(found.given[name], array)
    for name, array in start["output_gradients"].items():
        assert np.array_equal(found.output_gradients[name], array)
    message = "holds only the hash of blobs and gradients: expected a bundle with its tensors"
    with pytest.raises(FileError, match=message):
        read(hashes.path, net)


def test_what_a_run_starts_from_needs_hashes_alone(bundles):
    net = bundles[0].recipe.net()
    whole, hashes = (given(bundle, net) for bundle in bundles)
    for section, arrays in whole.items():
        assert arrays.keys() == hashes[section].keys() == bundles[0].entries[section].keys()
        assert all(np.array_equal(array, hashes[section][name]) for name, array in arrays.items())


def test_what_is_not_as_its_recipe_says_is_refused(bundles, tmp_path):
    text = (bundles[1].path / "manifest.json").read_text()
    manifest = json.loads(text)
    manifest["tensors"]["params"]["conv1_w"]["sha256"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    bundle = golden.Bundle(tmp_path)
    with pytest.raises(
        FileError, match="params conv1_w is not what its recipe gives: `refnet golden verify`"
    ):
        given(bundle, bundle.recipe.net())


# Damage.


def npy_bytes(descr="'<f4'", shape="(2,)", values=b"\0" * 8, order="False"):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


HEADERS = {
    "fewer": (npy_bytes(values=b"\0" * 7), "should have 8 bytes of values and has 7: it is damaged"),
    "more": (npy_bytes(values=b"\0" * 9), "should have 8 bytes of values and has 9"),
    "huge": (npy_bytes(shape="(1000000000, 1000000000, 1000000000)"), "should have 4000000000"),
    "negative": (npy_bytes(shape="(-2, -1)"), "damaged"),
    "objects": (npy_bytes("'|O'"), "holds Python objects: expected float64, float32, float16, bfloat16"),
    "records": (npy_bytes("[('a', '<f4')]"), "holds .*'a'.*: expected float64"),
    "text": (npy_bytes("'<U2'"), "holds <U2: expected float64"),
    "complex": (npy_bytes("'<c8'"), "holds complex64: expected float64"),
    "no dtype": (npy_bytes("'<f1'"), "has a damaged header: expected descr"),
    "code": (npy_bytes(shape="(print(1),)"), "has a damaged header: expected descr"),
    "version": (b"\x93NUMPY\x07\x00" + bytes(99), r"format version \(7, 0\)"),
    "magic": (b"hello", r"begins with b'hello': expected b'\\x93NUMPY'"),
    "empty": (b"", "ends within its header: it is damaged"),
}


@pytest.mark.parametrize("damage", HEADERS)
def test_damaged_arrays_are_one_line(damage, tmp_path):
    content, words = HEADERS[damage]
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "conv1.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("conv1.npy", content)
    for path in (tmp_path / "dump", tmp_path / "a.npz"):
        refused(path, words)


def refused(path, words, error=FileError):
    with pytest.raises(error, match=words) as raised:
        candidate.read(path, NET)
    assert "\n" not in str(raised.value) and printable(str(path)) in str(raised.value)


def test_pickles_are_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    np.savez(tmp_path / "a.npz", conv1=np.array([Trap(), 1], object))
    refused(tmp_path / "a.npz", "holds Python objects")
    assert not (tmp_path / "sprung").exists()


def test_damaged_archives_are_one_line(tmp_path):
    path = compressed(tmp_path, ARRAYS)
    whole = path.read_bytes()
    for content, words in (
        (b"", "cannot be read: File is not a zip file"),
        (whole[: len(whole) // 2], "cannot be read"),
        (whole[:2000] + b"\xff" * 8 + whole[2008:], "cannot be read|damaged"),
    ):
        path.write_bytes(content)
        refused(path, words)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README", "x")
    refused(path, "holds README, which is no .npy")
    with zipfile.ZipFile(path, "w"):
        pass
    refused(path, "holds no array: expected .npz")


def test_an_archive_that_says_too_little_or_much_is_one_line(tmp_path):
    """The sizes in the directory of an archive are not those of its members."""
    np.savez_compressed(tmp_path / "a.npz", conv1=np.zeros(10_000))
    whole = (tmp_path / "a.npz").read_bytes()
    true = struct.pack("<I", 80_128)
    assert whole.count(true)
    for size, words, error in (
        (2**32 - 2**20, "needs about|should have 80000 bytes", (FileError, TooLargeError)),
        (2_000, "should have 80000 bytes of values and has 1872|Bad CRC", FileError),
        (80_136, "should have 80000 bytes of values and has 80008|Bad CRC", FileError),
    ):
        (tmp_path / "a.npz").write_bytes(whole.replace(true, struct.pack("<I", size)))
        refused(tmp_path / "a.npz", words, error)


def test_names_that_are_there_twice_are_refused(tmp_path):
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("conv1.npy", npy_bytes())
    refused(tmp_path / "a.npz", "holds conv1 twice")
    one = np.ones(2)
    for names in (("conv1", "blob/conv1"), ("dY/pool1", "dy/pool1"), ("d conv1_w", "grad/conv1_w")):
        np.savez(tmp_path / "a.npz", **dict.fromkeys(names, one))
        refused(tmp_path / "a.npz", f"holds one array twice, as {names[0]} and as {names[1]}")


@pytest.mark.parametrize("write", FORMATS)
def test_names_that_no_message_could_show_are_refused(write, tmp_path):
    path = write(tmp_path, {"conv\n\x1b[31m1": np.ones(2)})
    with pytest.raises(FileError, match=r"holds the name 'conv\\n\\x1b\[31m1': expected printable"):
        candidate.read(path, NET)


def test_damaged_safetensors_are_one_line(tmp_path):
    path = safetensors(tmp_path, {"conv1": np.ones(4, np.float32)})
    whole = path.read_bytes()
    header = {"conv1": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 16]}}
    text = json.dumps(header).encode()
    for content in (
        b"",
        whole[:-1],
        whole + b"\0",
        struct.pack("<Q", 2**60) + whole[8:],
        struct.pack("<Q", len(text)) + text + bytes(16),
        struct.pack("<Q", 4) + b"{{{{",
    ):
        path.write_bytes(content)
        refused(path, "cannot be read")
    ml_dtypes = peer("ml_dtypes")
    safetensors(tmp_path, {"conv1": np.ones(4, ml_dtypes.float8_e5m2)})
    refused(path, "conv1 holds F8_E5M2: expected float64, float32, float16, bfloat16")


def test_what_a_header_promises_is_judged_before_it_is_read(tmp_path, monkeypatch):
    """Files that have no size on a disk: a tensor, a header; axes and depths that no tensor has."""
    monkeypatch.setattr(memory, "available", lambda: 10**9)

    def never(file, tensor):
        raise AssertionError("values were read")

    monkeypatch.setattr(safetensors_file, "read", never)
    for shape, words in (
        ([10**9], "needs about 3.7 GiB of memory"),
        ([1] * 33, "has 33 axes: expected 32 at most"),
        ([[]], "sizes or offsets that are none"),
    ):
        size = 4 * 10**9 if shape == [10**9] else 4
        text = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
        with (tmp_path / "a.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + size)
        refused(tmp_path / "a.safetensors", words, TooLargeError if size > 4 else FileError)
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 2**33))
        file.truncate(8 + 2**33)
    refused(tmp_path / "a.safetensors", "its header has 8589934592 bytes: expected 4194304 at most")
    text = b'{"__metadata__":' + b"[" * 100_000
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    refused(tmp_path / "a.safetensors", "nested more than 16 deep")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_of_spaces_is_not_read(tmp_path, compression):
    array = io.BytesIO()
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
    array.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**24) + header.ljust(2**24 - 1) + b"\n" + bytes(4))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.writestr("x.npy", array.getvalue())
    tracemalloc.start()
    refused(tmp_path / "a.npz", "x has a header of 16777216 bytes: expected 10000 at most")
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_damaged_protos_are_one_line(tmp_path):
    onnx = peer("onnx")
    path = protos(tmp_path, {"conv1": np.ones(4, np.float32)})
    file = path / "output_0.pb"
    tensor = onnx.TensorProto()
    for content, words in (
        (b"", "is no TensorProto"),
        (b"\xff" * 9, "cannot be read"),
        (file.read_bytes()[:-1], "cannot be read"),
        (b"\x08\x7f" + file.read_bytes(), "cannot be read"),
    ):
        file.write_bytes(content)
        with pytest.raises(FileError, match=words) as raised:
            candidate.read(path, NET)
        assert "\n" not in str(raised.value) and str(file) in str(raised.value)
    tensor.name, tensor.data_type, tensor.data_location = "conv1", 1, onnx.TensorProto.EXTERNAL
    tensor.dims.append(2)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    file.write_bytes(tensor.SerializeToString())
    with pytest.raises(FileError, match="keeps its values in another file"):
        candidate.read(path, NET)
    words = onnx.helper.make_tensor("conv1", onnx.TensorProto.STRING, [1], [b"x"])
    file.write_bytes(words.SerializeToString())
    with pytest.raises(FileError, match="holds Python objects: expected float64"):
        candidate.read(path, NET)


def test_protos_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "conv1.pb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(FileError, match=r"conv1.pb needs the package onnx: pip install 'refnet\[onnx\]'"):
        candidate.read(tmp_path, NET)


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", "neither a file nor a folder: expected .npz")
    refused("/dev/zero", "neither a file nor a folder")
    (tmp_path / "dump").mkdir()
    os.mkfifo(tmp_path / "dump" / "conv1.npy")
    with pytest.raises(FileError, match="conv1.npy is not a file"):
        candidate.read(tmp_path / "dump", NET)
    (tmp_path / "dump" / "conv1.npy").unlink()
    refused(tmp_path / "dump", "holds no array: expected .npz, .safetensors, or a folder of .npy or ONNX .pb")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    for name, words in (
        ("no.npz", "does not exist: expected .npz"),
        ("loop.npz", "cannot be read"),
        ("a\0.npz", "cannot be read"),
        ("x" * 999, "cannot be read"),
    ):
        refused(tmp_path / name, words)
    for name in ("a.pt", "a.bin", "a"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "is of no known format: expected .npz, .safetensors, or a folder")


def test_what_would_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("refnet.memory.available", lambda: 1000)
    for folder, write in enumerate((npz, safetensors, npys)):
        (tmp_path / str(folder)).mkdir()
        path = write(tmp_path / str(folder), {"conv1": np.ones(1000)})
        refused(path, "needs about 7.* KiB|needs about 1.* KiB", TooLargeError)


def test_code_that_is_not_of_this_file_reads_what_numpy_writes(tmp_path):
    """Headers of version 2, Fortran order, big-endian values, by NumPy's own writer."""
    values = np.arange(6, dtype=">f8").reshape(2, 3)
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, np.asfortranarray(values), version=(2, 0))
    found = tensor_files.read(tmp_path / "a")["x"]
    assert np.array_equal(found, values) and found.shape == (2, 3)

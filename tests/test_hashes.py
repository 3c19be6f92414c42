"""What small networks of every family compute has the pinned bits, whatever computes it."""

import json
from itertools import product

import bundles
import numpy as np
import pytest
from support import every_dtype
from threadpoolctl import threadpool_limits

from refnet._core import micro_kernel
from refnet.ops import OPS

every_arithmetic = pytest.mark.parametrize("arithmetic", bundles.ARITHMETICS)
every_net = pytest.mark.parametrize("name", bundles.NETS)


@pytest.fixture(autouse=True)
def give_back():
    before = micro_kernel.name()
    yield
    micro_kernel.use(before)


@every_dtype
@every_net
@every_arithmetic
@pytest.mark.parametrize("version", micro_kernel.versions())
def test_every_version_and_number_of_threads_computes_the_pinned_bits(version, arithmetic, name, dtype):
    micro_kernel.use(version)
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="openmp"):
            found = bundles.hashes(arithmetic, name, dtype)
            assert found == bundles.right()[arithmetic][name][dtype], f"{threads} threads"


def test_every_operator_is_in_a_network_and_every_network_is_pinned():
    assert bundles.operators().keys() == OPS.keys()
    pinned = {
        (arithmetic, name, dtype): found
        for arithmetic, of_nets in bundles.right().items()
        for name, of_net in of_nets.items()
        for dtype, found in of_net.items()
    }
    assert pinned.keys() == set(product(bundles.ARITHMETICS, bundles.NETS, bundles.DTYPES))
    blobs = [found["blobs"] for found in pinned.values()]
    assert len(set(blobs)) == len(blobs), "two networks compute the same"


def test_one_other_bit_is_another_hash(monkeypatch, tmp_path, capsys):
    """What the comparison without pytest says, and that a bit is enough."""
    monkeypatch.setattr(bundles, "NETS", {"moves": bundles.moves})
    assert bundles.main([]) == 0
    changed = bundles.right()
    changed["exact"]["moves"]["float32"]["blobs"] = "0" * 64
    (tmp_path / "hashes.json").write_text(json.dumps(changed))
    monkeypatch.setattr(bundles, "FILE", tmp_path / "hashes.json")
    capsys.readouterr()
    assert bundles.main([]) == 1 and capsys.readouterr().out == "other bits: exact, moves, float32: blobs\n"
    assert bundles.main(["--write"]) == 0 and bundles.main([]) == 0


def test_a_digest_sees_names_order_and_every_bit():
    a, b = np.zeros(3), np.zeros(3)
    b[1] = -0.0
    found = [
        {"a": a, "b": a},
        {"b": a, "a": a},
        {"a": a, "b": b},
        {"a": a},
        {"a": a, "b": a.astype("float32")},
    ]
    assert len({bundles.digest(arrays) for arrays in found}) == len(found)

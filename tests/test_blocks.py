"""Memory that goes from array to array: never to two at once, never more than is said."""

import threading

import numpy as np

from refnet._core import blocks
from refnet.arithmetic import core

LARGE = 4 * blocks.GRAIN


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_takes_the_memory_of_one_that_is_gone():
    blocks.give_back()
    first = np.ndarray(LARGE, np.uint8, blocks.Block(LARGE))
    where = address(first)
    view = first[5:]
    del first
    assert blocks.kept() == 0  # the view still needs it
    second = np.ndarray(LARGE, np.uint8, blocks.Block(LARGE))
    assert address(second) != where
    del view
    assert blocks.kept() == LARGE
    third = np.ndarray(LARGE - 7, np.uint8, blocks.Block(LARGE - 7))
    assert address(third) == where
    assert blocks.kept() == 0


def test_a_much_larger_block_is_not_wasted_on_a_small_array():
    blocks.give_back()
    large, small = blocks.Block(2 * LARGE), blocks.Block(LARGE)
    del large, small
    assert blocks.kept() == 3 * LARGE
    small = blocks.Block(LARGE)
    assert blocks.kept() == 2 * LARGE
    del small


def test_all_blocks_together_never_take_more_than_those_in_use_once_did():
    blocks.give_back()
    most = blocks.MOST_KEPT // blocks.GRAIN // 4 + 5  # more than any test before
    held = [blocks.Block(4 * blocks.GRAIN) for _ in range(most)]
    del held[: most // 2]
    assert blocks.kept() > 0
    other = [blocks.Block(9 * blocks.GRAIN) for _ in range(most // 6)]
    assert len(held) * 4 + len(other) * 9 + blocks.kept() // blocks.GRAIN <= most * 4
    del held, other


def test_what_waits_is_bounded_and_can_be_given_back():
    blocks.give_back()
    held = [blocks.Block(blocks.MOST_KEPT // 4) for _ in range(6)]
    del held
    assert 0 < blocks.kept() <= blocks.MOST_KEPT
    many = [blocks.Block(1) for _ in range(200)]
    del many
    assert blocks.kept() <= blocks.MOST_KEPT
    huge = blocks.Block(blocks.MOST_KEPT + 1)
    del huge
    assert blocks.kept() <= blocks.MOST_KEPT
    blocks.give_back()
    assert blocks.kept() == 0


def test_results_stay_what_they_are_while_others_are_computed():
    x = np.arange(1 << 18, dtype=np.float64).reshape(1, 4, 1, 256, 256) - 1000
    kept = [core.relu.forward(x + i)[0] for i in range(4)]
    for _ in range(8):
        core.relu.forward(-x)
    for i, y in enumerate(kept):
        assert np.array_equal(y, np.maximum(x + i, 0))


def test_threads_that_compute_at_once_do_not_share_memory():
    rng = np.random.default_rng(0)
    xs = [rng.integers(-9, 10, (1, 8, 4, 64, 64)).astype(np.float64) for _ in range(4)]
    w = rng.integers(-3, 4, (16, 8, 1, 3, 3)).astype(np.float64)
    expected = [core.conv3d.forward(x, w, pad=(0, 1, 1))[0].copy() for x in xs]
    wrong = []

    def work(i):
        for _ in range(10):
            if not np.array_equal(core.conv3d.forward(xs[i], w, pad=(0, 1, 1))[0], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_that_take_and_return_memory_at_once_never_hold_the_same():
    """Without the GIL, and without a mutex in its place, four of six such runs crashed."""
    in_use, wrong = blocks.in_use(), []

    def work(thread):
        rng, held = np.random.default_rng(thread), []
        for i in range(500):
            count = int(rng.integers(1, 9)) * blocks.GRAIN // 8
            array = np.ndarray(count, np.int64, blocks.Block(count * 8))
            array[[0, -1]] = name = 1000 * thread + i
            held.append((array, name))
            del array
            if len(held) > 4:
                found, name = held.pop(int(rng.integers(len(held))))
                if found[0] != name or found[-1] != name:
                    wrong.append(name)
                del found

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert blocks.in_use() == in_use

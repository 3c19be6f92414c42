"""JSON that nobody vouches for."""

import json

import pytest

from refnet import bounded_json

VALUES = [
    {"a": [1, -2.5, True, None, '\\" [{ ]} \u00e9 \n \\'], "": {}},
    [],
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    {'[{"\\': "}}}}"},
    12,
]


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("ascii", [False, True])
def test_values_come_back(value, ascii):
    assert bounded_json.loads(json.dumps(value, ensure_ascii=ascii).encode()) == value


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_depth_is_bounded(pair):
    def nested(depth):
        inside = '"x":' if pair == "{}" else ""
        return (pair[0] + inside) * (depth - 1) + pair + pair[1] * (depth - 1)

    deepest = nested(bounded_json.DEEPEST).encode()
    assert bounded_json.loads(deepest) == json.loads(deepest)
    for depth in (bounded_json.DEEPEST + 1, 100_000):
        with pytest.raises(ValueError, match="nested more than 16 deep"):
            bounded_json.loads(nested(depth).encode())


def test_size_is_bounded():
    blanks = b" " * (bounded_json.LARGEST - 2)
    assert bounded_json.loads(b"[" + blanks + b"]") == []
    with pytest.raises(ValueError, match="expected 4194304 at most"):
        bounded_json.loads(b"[" + blanks + b" ]")


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', "[NaN]", "[-Infinity]", "1" * 5000, '"', '"\\', "{", "]", ""]
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError):
        bounded_json.loads(text.encode())
    with pytest.raises(ValueError, match="utf-8"):
        bounded_json.loads(b"\xff" + text.encode())

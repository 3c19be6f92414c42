"""JSON from a file that nobody vouches for: no larger and no deeper than what is expected."""

import json
import re
from typing import Any, NoReturn

LARGEST = 4 << 20
DEEPEST = 16
# A string, whole, or a bracket outside any.
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def loads(content: bytes) -> Any:
    """Read one JSON value, as RFC 8259 has it: no key twice, and no NaN.

    Parameters
    ----------
    content : bytes
        UTF-8.

    Raises
    ------
    ValueError
        If it is no such value, has more than `LARGEST` bytes, or is nested more than `DEEPEST` deep.
    """
    if len(content) > LARGEST:
        raise ValueError(f"it has {len(content)} bytes: expected {LARGEST} at most")
    text = content.decode()
    depth = 0
    for token in TOKEN.finditer(text):
        bracket = token[0]
        depth += (bracket in "[{") - (bracket in "]}")
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")

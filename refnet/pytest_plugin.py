"""A fixture for a project's own tests: golden values, pinned in its repository. See docs/exact.md."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from refnet.pinned import Golden


@pytest.fixture(scope="session")
def golden(pytestconfig: pytest.Config) -> Callable[..., "Golden"]:
    """Golden values of a network: ``golden("tests/res18.json")``, or ``golden("resnet18_conv4", input=...)``.

    They are derived once on each machine and then kept in the user's cache folder. A path is that of a
    manifest or a bundle, from pytest's root folder on; any other name is an architecture's, with options of
    `refnet.golden.Recipe`. The result, a `refnet.pinned.Golden`, has `given`, `output_gradients`, arrays by
    name, and ``.same(arrays)`` and ``.check(arrays, accumulate=..., store=...)``.
    """
    from refnet import pinned
    from refnet.errors import ValueRangeError
    from refnet.networks import ARCHITECTURES

    known: dict[str, Golden] = {}

    def find(name: str, **options: Any) -> "Golden":
        key = f"{name} {options!r}"
        if key not in known:
            path = pytestconfig.rootpath / name
            if name in ARCHITECTURES or not (path.exists() or path.suffix or "/" in name):
                known[key] = pinned.recipe(name, **options)
            elif options:
                raise ValueRangeError(f"{name} pins its recipe: expected no {', '.join(options)} beside")
            else:
                known[key] = pinned.pinned(path)
        return known[key]

    return find

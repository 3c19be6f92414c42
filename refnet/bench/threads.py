"""How many threads each library of the process may use, and which BLAS is the yardstick.

Two libraries can only be compared if both have the same number; threadpoolctl knows how each is told.
"""

from contextlib import AbstractContextManager
from typing import Any

from refnet.errors import RefnetError


def limited(threads: int) -> AbstractContextManager[Any]:
    """A context in which every library that is loaded runs on that many threads.

    Raises
    ------
    RefnetError
        If threadpoolctl is not installed.
    """
    context: AbstractContextManager[Any] = _threadpoolctl().threadpool_limits(threads)
    return context


def blas() -> list[str]:
    """Name the BLAS libraries of this process: implementation, version, kernels."""
    return sorted(
        " ".join(str(info[key]) for key in ("internal_api", "version", "architecture") if info.get(key))
        for info in _threadpoolctl().threadpool_info()
        if info["user_api"] == "blas"
    )


def _threadpoolctl() -> Any:
    try:
        import threadpoolctl
    except ImportError:
        raise RefnetError(
            "measuring needs threadpoolctl, which is not installed: pip install threadpoolctl "
            "(the extra bench has it, the extra peers all that refnet is measured beside)"
        ) from None
    return threadpoolctl

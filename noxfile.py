"""Sessions: build, test, lint, bench, wheel-test, large. ``nox -l`` lists them, ``nox -s test`` runs one."""

import os
import shutil
import tempfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "test", "wheel-test"]
DIST = Path("dist")


@nox.session
def build(session: nox.Session) -> None:
    """The source distribution and the wheel that is built from it, into dist/."""
    shutil.rmtree(DIST, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build")


@nox.session
def test(session: nox.Session) -> None:
    """The tests, from an editable install; REFNET_REQUIRE_PEERS=1 installs the peers too."""
    session.install("-e", ".[test]")
    if os.environ.get("REFNET_REQUIRE_PEERS"):
        session.install("torch", "jax", "onnxruntime", "onnx", "opencv-python-headless")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy and cython-lint."""
    session.install("ruff", "mypy", "cython-lint", "numpy", "typer", "threadpoolctl", "safetensors")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("cython-lint", "_core")


@nox.session
def bench(session: nox.Session) -> None:
    """The asv suite, then refnet beside its peers in one run; results of asv in build/asv."""
    session.install("-e", ".[bench]")
    head = str(session.run("git", "rev-parse", "HEAD", silent=True, external=True)).strip()
    home = {
        "HOME": str(Path(session.create_tmp()).absolute())
    }  # where asv keeps what it knows of this machine
    suite = ("--config", "benchmarks/asv.conf.json", "--python=same")
    session.run("asv", "machine", "--yes", *suite[:2], env=home)
    session.run("asv", "check", *suite, env=home)
    session.run("asv", "run", *suite, "--set-commit-hash", head, env=home)
    session.run("refnet", "bench", *session.posargs)


@nox.session(name="wheel-test")
def wheel_test(session: nox.Session) -> None:
    """Build the packages, install the wheel, and run the smoke tests away from the sources."""
    build(session)
    (wheel,) = DIST.glob("*.whl")
    session.install(str(wheel), "pytest")
    with tempfile.TemporaryDirectory() as elsewhere:
        shutil.copy(Path("tests", "test_smoke.py"), elsewhere)
        with session.chdir(elsewhere):
            session.run("python", "-m", "pytest", "-p", "no:cacheprovider", "test_smoke.py")


@nox.session
def large(session: nox.Session) -> None:
    """The tests of blobs of 2**31 values and more: up to 10 GiB of memory, one at a time."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-m", "large", "tests/test_large.py", *session.posargs)

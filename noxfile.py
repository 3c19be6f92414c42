"""Sessions, from test to aarch64: ``nox -l`` lists them, ``nox -s test`` runs one."""

import os
import platform
import shutil
import tempfile
import tomllib
import zipfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "test", "wheel-test"]
DIST = Path("dist")
PYPROJECT = tomllib.loads(Path("pyproject.toml").read_text())
KERNEL_TESTS = (
    *("test_micro_kernel.py", "test_kernels.py", "test_hashes.py", "test_accumulator.py"),
    "test_exact_products.py",
)
SANITIZED_TESTS = (
    *("test_kernels.py", "test_operators.py", "test_cases.py", "test_nonfinite.py", "test_conv3d.py"),
    *("test_roi_align.py", "test_sums.py", "test_blocks.py"),
)
THREADED_TESTS = ("test_blocks.py", "test_process.py", "-k", "threads and not fork")
TESTING_KERNELS = ("pytest>=8", "hypothesis>=6.100", "threadpoolctl>=3.5")  # what these tests need
INSTRUMENTED = "-O1 -g1 -fno-omit-frame-pointer"
SANITIZERS = f"{INSTRUMENTED} -fsanitize=address,undefined -fno-sanitize-recover=undefined"
FREE_THREADED = ("python3.14t", "python3.13t")
FREE_THREADED_TESTS = (
    *(
        "test_blocks.py",
        "test_process.py",
        "test_kernels.py",
        "test_conv3d.py",
        "test_operators.py",
        "test_run.py",
    ),
    *("test_roi_align.py", "test_environment.py", "test_training_operators.py", "test_networks.py"),
)
FOUND = 66  # how a process ends in which a sanitizer has found something
# Emulated, these take minutes and show nothing that the others do not: lines have a kernel for AVX-512
# alone.
SLOW_EMULATED = (
    "workspace or (lines and not groups) or "
    "(baseline and (integers or large_gradients or definition or pinned or layer)) or "
    "(pinned and exact and not (moves or training or frame)) or carry or "
    "(exact_products and not (every_element and (ordinary or ties)))"
)


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
    session.run("python", "-m", "pytest", "-n", "logical", *session.posargs)


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
    session.install("-e", ".[bench,peers]", "asv>=0.6.4")
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
    """The tests of blobs of 2**31 values and more: up to 16 GiB of memory, one at a time."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-m", "large", "tests/test_large.py", *session.posargs)


@nox.session
def seeds(session: nox.Session) -> None:
    """Checks and certification of what is right, over 200 and 50 seeds: no false alarm. Hours of one core."""
    session.install("-e", ".[test]")
    if os.environ.get("REFNET_REQUIRE_PEERS"):
        session.install("torch", "jax", "onnxruntime", "onnx")
    files = ("tests/test_gradcheck.py", "tests/test_check_op.py", "tests/test_certify_scoreboard.py")
    session.run("python", "-m", "pytest", "-m", "seeds", *files, *session.posargs)


NOT_COPIED = (".*", "build", "dist", "*.egg-info", "*.so", "__pycache__")


def sources(folder: Path) -> Path:
    """A copy of the sources: with what Cython has made of them already, with no object of another build."""
    copied = folder / "sources"
    shutil.copytree(".", copied, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for translated in (Path("build", "_core"), Path("build", "cython_include")):
        if translated.is_dir():
            shutil.copytree(translated, copied / translated)
    return copied


def wheel(session: nox.Session, copied: Path, env: dict[str, str]) -> Path:
    """Build the package from a copy of the sources, with the compiler that the environment names."""
    session.install(*PYPROJECT["build-system"]["requires"])
    with session.chdir(copied):
        session.run("python", "setup.py", "-q", "bdist_wheel", env=env)
    (built,) = (copied / "dist").glob("*.whl")
    return built


@nox.session
def clang(session: nox.Session) -> None:
    """The kernels as clang builds them, with OpenMP if it has any, tested; arguments are those of pytest."""
    if not shutil.which("clang"):
        session.error("clang not found: on Debian, `apt-get install clang libomp-dev`")
    with tempfile.TemporaryDirectory() as folder:
        built = wheel(session, sources(Path(folder)), {"CC": "clang"})
        session.install(str(built), *TESTING_KERNELS)
    with session.chdir("tests"):  # where no refnet lies but the one that was built
        session.run("python", "-m", "pytest", "-p", "no:cacheprovider", *(session.posargs or KERNEL_TESTS))


# So many values, in so many Python threads.
ADD = """
import numpy as np, sys, threading
from refnet._core import add
together = threading.Barrier(int(sys.argv[2]))
def work():
    arrays = [np.zeros(int(sys.argv[1])) for _ in range(3)]
    together.wait()
    for _ in range(100):
        add.forward(*arrays)
threads = [threading.Thread(target=work) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def instrument(
    session: nox.Session,
    folder: Path,
    compiler: str,
    fault: tuple[str, str],
    calls: list[tuple[int, int]],
    env: dict[str, str],
) -> None:
    """Install the kernels, built by a compiler with its options behind every other one.

    First with a fault in a copy of the sources, a piece of the kernel of `add` and what replaces it. For each
    call, so many values in so many Python threads, it must be found; without it, nothing.
    """
    command = folder / "compiler"
    name, _, options = compiler.partition(" ")
    command.write_text(f'#!/bin/sh\nexec {shutil.which(name)} "$@" {options}\n')
    command.chmod(0o755)
    copied = sources(folder)
    kernel = copied / "_core" / "add.pyx"
    right = kernel.read_text()
    wrong = right.replace(*fault)
    if wrong == right:
        session.error(f"{kernel.name} has no {fault[0]!r} to plant a fault in")
    for text, code in ((wrong, FOUND), (right, 0)):
        kernel.write_text(text)
        built = wheel(session, copied, {"CC": str(command)})
        session.install("--force-reinstall", "--no-deps", str(built))
        session.install(str(built), *TESTING_KERNELS)
        with session.chdir(folder):
            for call in calls:
                session.run("python", "-c", ADD, *map(str, call), env=env, success_codes=[code])


def path_of(session: nox.Session, compiler: str, library: str) -> str:
    """Where a compiler has a library of its own."""
    return str(session.run(compiler, f"-print-file-name={library}", silent=True, external=True)).strip()


@nox.session
def sanitize(session: nox.Session) -> None:
    """The kernels under AddressSanitizer and UndefinedBehaviorSanitizer; arguments are those of pytest.

    First a kernel with a planted overrun, of one element: it must be found. Then the tests, and 20,000 drawn
    problems, each array next to a closed page.
    """
    if not shutil.which("gcc"):
        session.error("gcc not found: on Debian, `apt-get install gcc libasan8 libubsan1`")
    env = {
        "LD_PRELOAD": " ".join(path_of(session, "gcc", f"lib{name}.so") for name in ("asan", "ubsan")),
        # What Python itself leaks is none of ours; it and NumPy are to take their memory where it is guarded.
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode={FOUND}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={FOUND}",
        "PYTHONMALLOC": "malloc",
    }
    with tempfile.TemporaryDirectory() as temporary:
        overrun = ("for i in range(n):", "for i in range(n + 1):")
        instrument(session, Path(temporary), f"gcc {SANITIZERS}", overrun, [(1000, 1)], env)
    with session.chdir("tests"):  # where no refnet lies but the one that was built
        tests = session.posargs or SANITIZED_TESTS
        session.run("python", "-m", "pytest", "-p", "no:cacheprovider", "-x", *tests, env=env)
        if not session.posargs:
            session.run("python", "guarded.py", env=env)


@nox.session
def guarded(session: nox.Session) -> None:
    """20,000 drawn problems in kernels like any others, each array next to a closed page: 15 minutes.

    Arguments are those of guarded.py: ``--time 120`` draws none after two minutes.
    """
    session.install("-e", ".[test]")
    session.run("python", "tests/guarded.py", *session.posargs)


@nox.session
def threads(session: nox.Session) -> None:
    """The kernels under ThreadSanitizer, in Python's threads and in OpenMP's; arguments are those of pytest.

    First a kernel with a planted race, a count that every piece adds to: it must be found among Python's
    threads, and among OpenMP's, which archer tells ThreadSanitizer of.
    """
    missing = [name for name in ("clang", "gcc") if not shutil.which(name)]
    if not missing:
        resources = session.run("clang", "-print-resource-dir", silent=True, external=True)
        archer = Path(str(resources).strip()).parents[1] / "libarcher.so"
        # clang links programs with its own ThreadSanitizer, also the one that tells whether there is OpenMP.
        own = path_of(session, "clang", f"libclang_rt.tsan-{platform.machine()}.a")
        missing = [Path(file).name for file in (archer, own) if not Path(file).exists()]
    if missing:
        session.error(
            f"{', '.join(missing)} not found: on Debian, "
            "`apt-get install clang libclang-rt-dev libomp-dev gcc libtsan2`"
        )
    env = {
        "LD_PRELOAD": path_of(session, "gcc", "libtsan.so"),  # clang's own cannot be preloaded
        "OMP_TOOL_LIBRARIES": str(archer),
        "OMP_NUM_THREADS": "3",
        "TSAN_OPTIONS": f"exitcode={FOUND}:suppressions={Path('tests', 'races.txt').absolute()}",
    }
    head = (
        "cdef void add(const floating* x1, const floating* x2, floating* y, Py_ssize_t n) noexcept nogil:\n"
    )
    race = (head, f"cdef Py_ssize_t planted = 0\n\n\n{head}    global planted\n    planted += 1\n")
    with tempfile.TemporaryDirectory() as temporary:
        options = f"{INSTRUMENTED} -fsanitize=thread"
        instrument(session, Path(temporary), f"clang {options}", race, [(1 << 15, 4), (1 << 20, 1)], env)
    with session.chdir("tests"):  # where no refnet lies but the one that was built
        tests = session.posargs or THREADED_TESTS
        session.run("python", "-m", "pytest", "-p", "no:cacheprovider", "-x", *tests, env=env)


@nox.session(name="free-threaded", venv_backend="none")
def free_threaded(session: nox.Session) -> None:
    """The tests of kernels and networks under a Python without a GIL; arguments are those of pytest."""
    python = next(filter(shutil.which, FREE_THREADED), None)
    if python is None:
        session.error(
            f"no free-threaded Python: neither {' nor '.join(FREE_THREADED)} is on the PATH; "
            "the sources of CPython, configured with --disable-gil, install one"
        )
    with tempfile.TemporaryDirectory() as temporary:
        session.run(python, "-m", "venv", temporary, external=True)
        own = str(Path(temporary, "bin", "python"))
        session.run(
            own, "-m", "pip", "install", "--only-binary=:all:", "--no-binary=refnet", ".[test]", external=True
        )
        with session.chdir("tests"):  # where no refnet lies but the one that was built
            tests = session.posargs or FREE_THREADED_TESTS
            session.run(own, "-m", "pytest", "-p", "no:cacheprovider", *tests, external=True)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Drawn calls of operators, mutated files; arguments are those of tests/fuzz.py: --seed, --minutes."""
    session.install("-e", ".[test]", "onnx", "onnxruntime")
    session.run("python", "tests/fuzz.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def exact(session: nox.Session) -> None:
    """Drawn problems of exact arithmetic, 10^8 elements against independent oracles: half an hour.

    Arguments are those of tests/exact_draws.py: --elements, --seed, --minutes.
    """
    session.install("-e", ".[test]")
    session.run("python", "tests/exact_draws.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def faults(session: nox.Session) -> None:
    """Commands killed, starved and raced; arguments are those of tests/faults.py: --seed, --minutes."""
    session.install("-e", ".[test]")
    session.run("python", "tests/faults.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Planted changes, each of which a test must find; arguments are those of tests/mutation.py."""
    session.install(*PYPROJECT["build-system"]["requires"])
    session.install(
        "-e", ".[test]"
    )  # a mutated copy, whose modules come first, is of a package that is known
    session.run("python", "tests/mutation.py", *session.posargs)


@nox.session
def aarch64(session: nox.Session) -> None:
    """Cross-compile for AArch64, and test under qemu, whose multiply-add is exact.

    Arguments are those of pytest. Python and the C library are Debian's of arm64, unpacked into a folder:
    nothing is installed.
    """
    tools = ("aarch64-linux-gnu-gcc", "qemu-aarch64-static", "apt-get", "dpkg")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        session.error(
            f"{', '.join(missing)} not found: this session runs on Debian, after "
            "`apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static`"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        root = arm64_root(session, folder)
        python = next(root.glob("usr/bin/python3.*[0-9]"))
        packages = arm64_packages(session, folder, root, python.name)
        with session.chdir("tests"):
            session.run(
                *("qemu-aarch64-static", "-L", str(root), str(python), "-m", "pytest"),
                *("-p", "no:cacheprovider"),
                *(session.posargs or (*KERNEL_TESTS, "-k", f"not ({SLOW_EMULATED})")),
                env={"PYTHONPATH": str(packages)},
                external=True,
            )


def arm64_root(session: nox.Session, folder: Path) -> Path:
    """Python and its libraries as Debian lays them out, under a root of their own."""
    root, lists, cache = folder / "root", folder / "lists", folder / "cache"
    for each in (lists / "partial", cache / "archives" / "partial", root / "usr" / "lib"):
        each.mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (folder / "status").touch()
    options = (
        *(
            "APT::Architecture=arm64",
            "APT::Architectures::=arm64",
            "APT::Sandbox::User=",
            "Debug::NoLocking=1",
        ),
        *(f"Dir::State::Lists={lists}", f"Dir::State::status={folder / 'status'}", f"Dir::Cache={cache}"),
    )
    apt = ("apt-get", "-qq", *(f"-o{option}" for option in options))
    session.run(*apt, "update", external=True)
    wanted = ("python3", "libpython3-dev", "libgomp1", "libstdc++6")
    session.run(
        *(*apt, "install", "--yes", "--no-install-recommends", "--download-only", *wanted),
        external=True,
        silent=True,
    )
    for package in sorted(cache.glob("archives/*.deb")):
        session.run("dpkg", "-x", str(package), str(root), external=True, log=False)
    return root


def arm64_packages(session: nox.Session, folder: Path, root: Path, python: str) -> Path:
    """The package, cross-compiled, and what it and its tests need, for that Python."""
    packages = folder / "packages"
    session.install(
        *("--quiet", "--target", str(packages), "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", python.removeprefix("python")),
        *(f"--platform=manylinux{tag}_aarch64" for tag in ("_2_28", "_2_27", "_2_17", "2014")),
        *PYPROJECT["project"]["dependencies"],
        *TESTING_KERNELS,
    )
    # What Debian's Python says of its build names the cross compiler.
    (settings,) = root.glob(f"usr/lib/{python}/_sysconfigdata__aarch64-linux-gnu.py")
    (folder / "settings").mkdir()
    shutil.copy(settings, folder / "settings")
    headers = root / "usr" / "include"
    env = {
        "PYTHONPATH": str(folder / "settings"),
        "_PYTHON_SYSCONFIGDATA_NAME": settings.stem,
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        "CPPFLAGS": f"-I{headers / python} -I{headers}",
    }
    with zipfile.ZipFile(wheel(session, sources(folder), env)) as archive:
        archive.extractall(packages)
    return packages

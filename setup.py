"""Builds the Cython core: every `_core/*.pyx` becomes `refnet._core.*`, with OpenMP if there is any."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from Cython.Build.Dependencies import DependencyTree
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

CORE = Path("_core")
HEADERS = [str(header) for header in sorted(CORE.rglob("*.h"))]

# (compile, link) flags for OpenMP, the first pair that works is taken.
OPENMP = {
    "win32": [(["/openmp"], [])],
    "darwin": [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), (["-fopenmp"], ["-fopenmp"])],
}.get(sys.platform, [(["-fopenmp"], ["-fopenmp"])])

# No fast-math, no contraction of a * b + c and no -march: the same source gives the same bits on
# every machine. That nobody looks at errno or traps after an operation changes no value, and lets loops with
# a choice in them be vectorised.
STRICT = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
OPTIMISE = ["/O2", "/fp:precise"] if sys.platform == "win32" else ["-O3", "-g0", *STRICT]

OPENMP_PROBE = """
#include <omp.h>
int main(void) { return omp_get_max_threads() > 0 ? 0 : 1; }
"""


def staged_headers() -> str:
    """A folder in which `cimport refnet._core.x` finds `_core/x.pxd`."""
    root = Path("build", "cython_include")
    package = root / "refnet" / "_core"
    package.mkdir(parents=True, exist_ok=True)
    for folder in (package.parent, package):
        if not (folder / "__init__.pxd").exists():  # a newer one would have every file compiled again
            (folder / "__init__.pxd").touch()
    for header in CORE.glob("*.pxd"):
        shutil.copy2(header, package)
    return str(root)


class BuildExt(build_ext):
    """Adds OpenMP where the compiler has it; without, the same code runs on one thread."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.editable_mode:  # not in a folder that is deleted: what has not changed is not compiled again
            self.build_lib, self.build_temp = str(Path("build", "lib")), str(Path("build", "temp"))
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self) -> None:
        compile_flags, link_flags = next(filter(self.compiles, OPENMP), ([], []))
        if not compile_flags:
            print("refnet: this compiler has no OpenMP, the kernels will run on one thread")
        # Another compiler or other flags: all anew. Kernels with OpenMP must not get workspace for one thread
        # from a kernel without.
        recipe = Path("build", "recipe.txt")
        wanted = f"{self.compiler.compiler_so} {OPTIMISE} {compile_flags} {link_flags}"
        if not recipe.exists() or recipe.read_text() != wanted:
            recipe.write_text(wanted)
        for extension in self.extensions:
            extension.depends.append(str(recipe))
            extension.extra_compile_args += [*OPTIMISE, *compile_flags]
            extension.extra_link_args += link_flags
        super().build_extensions()

    def compiles(self, flags: tuple[list[str], list[str]]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text(OPENMP_PROBE)
            try:
                objects = self.compiler.compile([str(probe)], output_dir=folder, extra_postargs=flags[0])
                self.compiler.link_executable(objects, "probe", output_dir=folder, extra_postargs=flags[1])
            except (CompileError, LinkError):
                return False
        return True


def changed(tree: DependencyTree, file: str) -> float:
    """When a file of ours changed. Cython's own, unpacked by pip for each build, change with its version."""
    return Path(file).stat().st_mtime if Path.cwd() in Path(file).resolve().parents else 0.0


DependencyTree.timestamp = changed

setup(
    ext_modules=cythonize(
        [
            Extension(f"refnet._core.{source.stem}", [str(source)], include_dirs=[str(CORE)], depends=HEADERS)
            for source in sorted(CORE.glob("*.pyx"))
        ],
        include_path=[staged_headers()],
        build_dir="build",
        nthreads=(os.cpu_count() or 1) if sys.platform == "linux" else 0,
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            # What threads share is guarded by more than the GIL: blocks.pyx and interrupt.pyx say how.
            "freethreading_compatible": True,
        },
    ),
    cmdclass={"build_ext": BuildExt},
)

"""Build the compiled modules; everything else about the package is in pyproject.toml.

FASTCORE_DEBUG=1
    Every safety check on (bounds, wraparound, None, asserts), symbols kept,
    and the engine counts its own work.
FASTCORE_SANITIZE=address|undefined|address,undefined
    With the compiler's sanitizers.
"""

import os
import shutil
import sysconfig
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import PlatformError

DEBUG = os.environ.get("FASTCORE_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("FASTCORE_SANITIZE", "")

NO_COMPILER = """
fastcore is compiled while it is installed, and {missing} was not found. Install it and try again:
  Debian, Ubuntu   apt-get install gcc python3-dev
  Fedora, RHEL     dnf install gcc python3-devel
  macOS            xcode-select --install
  Windows          "Build Tools for Visual Studio", workload "Desktop development with C++"
"""


class BuildPackage(build_py):
    """Put fastcore-rpc.pth beside the package; what for is said in fastcore/collision.py."""

    def run(self):
        super().run()
        if not self.editable_mode:
            self.copy_file("fastcore-rpc.pth", self.build_lib)


class BuildExtensions(build_ext):
    """Say what to install where a compiler is missing, and never mix two variants of a build."""

    def finalize_options(self):
        super().finalize_options()
        # An object file doesn't know by which switches it was made.
        self.force = True

    def build_extensions(self):
        if self.compiler.compiler_type == "unix":
            compiler = self.compiler.compiler_so[0]
            if shutil.which(compiler) is None:
                raise SystemExit(NO_COMPILER.format(missing=f"the C compiler {compiler!r}"))
            header = os.path.join(sysconfig.get_path("include"), "Python.h")
            if not os.path.exists(header):
                raise SystemExit(NO_COMPILER.format(missing=f"Python's own C header {header}"))
        try:
            super().build_extensions()
        except PlatformError as error:  # how a missing MSVC shows
            raise SystemExit(NO_COMPILER.format(missing="a C compiler")) from error


def compile_flags():
    if os.name == "nt":
        return ["/Od", "/Zi"] if DEBUG else ["/O2"]
    flags = ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"] if DEBUG else ["-O3"]
    return flags + sanitizer_flags()


def sanitizer_flags():
    return [f"-fsanitize={SANITIZE}", "-g"] if SANITIZE else []


extensions = [
    Extension(
        source.removesuffix(".pyx").replace(os.sep, "."),
        [source],
        include_dirs=["fastcore"],
        depends=glob("fastcore/*.h") + glob("fastcore/*.pxd"),
        define_macros=[("FASTCORE_DEBUG", str(int(DEBUG)))],
        extra_compile_args=compile_flags(),
        extra_link_args=sanitizer_flags(),
    )
    for source in sorted(glob("fastcore/*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        # The C goes here and never into the tree; one folder for each set of directives.
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        compiler_directives={
            "language_level": "3",
            "embedsignature": True,
            "autotestdict": False,  # doctest finds them without
            "boundscheck": DEBUG,
            "wraparound": DEBUG,
            "initializedcheck": DEBUG,
            "nonecheck": DEBUG,
            "overflowcheck": DEBUG,
            "cdivision": not DEBUG,
        },
    ),
    cmdclass={"build_py": BuildPackage, "build_ext": BuildExtensions},
)

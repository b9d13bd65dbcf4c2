"""Build the compiled modules; everything else about the package is in pyproject.toml.

FASTCORE_DEBUG=1
    Every safety check on (bounds, wraparound, None, asserts), symbols kept,
    and the engine counts its own work.
FASTCORE_SANITIZE=address|undefined|address,undefined
    With the compiler's sanitizers.
SOURCE_DATE_EPOCH=SECONDS
    The date of all files in the sdist. Whoever builds it twice from the same files gets
    the same bytes, with this or without.
"""

import gzip
import os
import shutil
import sysconfig
import tarfile
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
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


class SourceDistribution(sdist):
    """Make the same bytes of the same files, whoever does it, and when."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        if format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        date = int(os.environ.get("SOURCE_DATE_EPOCH", "1577836800"))  # 2020; any will do

        def nobodys(member):
            member.mtime, member.uid, member.gid, member.uname, member.gname = date, 0, 0, "", ""
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            return member

        name = f"{base_name}.tar.gz"
        with (
            open(name, "wb") as file,
            gzip.GzipFile("", "wb", 9, file, mtime=date) as packed,
            tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in sorted(Path(base_dir).rglob("*")):
                if path.is_file():
                    archive.add(path, path.as_posix(), recursive=False, filter=nobodys)
        return name


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
    # Measured (docs/platforms.md): -O3 makes it a fifth larger and no faster; LTO gains less than differs
    # from run to run.
    flags = ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"] if DEBUG else ["-O2"]
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
    cmdclass={"build_py": BuildPackage, "build_ext": BuildExtensions, "sdist": SourceDistribution},
)

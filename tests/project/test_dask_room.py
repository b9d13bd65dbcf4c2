"""`fastcore.dask` where it can't be used: it says why, and disturbs nobody who doesn't use it."""

import importlib.util

import pytest

from helpers.support import Program


def says(program: str) -> str:
    with Program("-c", program) as running:
        said = running.rest()
        assert running.wait() == 0, running.errors
    return said


def test_it_is_imported_without_what_it_needs_and_names_that_when_it_is_used():
    said = says("""if True:
    import sys
    class Nothing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("dask", "distributed"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Nothing())
    import fastcore.dask
    print(*fastcore.dask.__all__)
    try:
        fastcore.dask.rpc
    except ImportError as error:
        print(error)
    print(hasattr(fastcore.dask, "Rpc"))
    """)
    assert said.splitlines() == [
        "ServerPlugin WorkerLost addresses on_cluster rpc",
        "no fastcore.dask.rpc here: it needs distributed: pip install 'fastcore-rpc[dask]'",
        "False",
    ]


def test_to_import_it_imports_nothing_else():
    said = says("""if True:
    import sys, fastcore.dask
    print({name.partition(".")[0] for name in sys.modules} & {"dask", "distributed", "numpy", "tornado"})
    """)
    assert said == "set()"


@pytest.mark.skipif(not importlib.util.find_spec("distributed"), reason="distributed isn't installed")
def test_it_is_not_for_processes_in_which_fastcore_stands_in_for_the_classic_core():
    said = says("""if True:
    import fastcore, fastcore.dask
    fastcore.install_as_distributed_core()
    try:
        from fastcore.dask import on_cluster
    except ImportError as error:
        print(error)
    """)
    assert said.startswith("no fastcore.dask.on_cluster here: install_as_distributed_core() stands in")

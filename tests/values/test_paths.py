"""Paths are made without pathlib's own way to make them, and nobody can tell."""

import pickle
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastcore._paths import IS_QUICK, posix_path, windows_path

names = st.sampled_from(
    ["", ".", "..", "a", "B", "a.txt", ".a", "d:", "d:e", "?", "UNC", "é", "İ", "\udc80", "x y"]
)
starts = st.sampled_from(
    [
        "",
        "/",
        "//",
        "///",
        "\\",
        "c:",
        "C:\\",
        "ä:",
        "1:",
        "\\\\",
        "\\\\?\\",
        "\\\\.\\",
        "\\\\?\\C:",
        "\\\\?\\UNC\\",
    ]
)
texts = st.builds(
    lambda start, parts, separators: start + "".join(p + s for p, s in zip(parts, separators, strict=False)),
    starts,
    st.lists(names, max_size=5),
    st.lists(st.sampled_from(["/", "\\", "//", "\\/", ""]), min_size=5),
) | st.text(st.sampled_from("aB:/\\.?é"), max_size=8)

ASKED = [
    type,
    str,
    hash,
    repr,
    lambda path: path,
    lambda path: (path.drive, path.root, path.anchor, path.parts, path.name, path.stem, path.suffixes),
    lambda path: (path.parent, [*path.parents], path.is_absolute()),
    lambda path: (
        path / "x",
        path / "/x",
        path / "d:x",
        "x" / path,
        type(path)("x", path),
        type(path)(path, "x"),
    ),
    lambda path: (PurePosixPath(path), PureWindowsPath(path), type(path)(path, path)),
    lambda path: (path.as_posix(), path.match("*.txt"), path.is_relative_to("a"), path < type(path)("b")),
    lambda path: (path.__reduce__(), pickle.loads(pickle.dumps(path)), hash(path.parent)),
    lambda path: path.with_name("n"),
    lambda path: path.with_suffix(".n"),
    lambda path: path.as_uri(),
    bytes,
]


def answer(path, ask):
    try:
        return ask(path)
    except (ValueError, UnicodeEncodeError) as error:
        return type(error), str(error)


@pytest.mark.parametrize(("kind", "make"), [(PurePosixPath, posix_path), (PureWindowsPath, windows_path)])
@given(texts)
@example("")
@example("//a/b")
@example(".\\c:a")
@example("\\\\server\\share")
@example("\\\\server\\share\\a")
def test_it_is_the_path_that_pathlib_makes(kind, make, text):
    """Whatever it is asked first: pathlib finds out most only then."""
    for ask in ASKED:
        assert answer(make(text), ask) == answer(kind(text), ask)
    made, path = make(text), kind(text)
    for ask in ASKED:
        assert answer(made, ask) == answer(path, ask)


def test_here_they_are_quick_to_make():
    """Where not, they are right all the same; but one letter costs as much as hundreds of numbers."""
    assert IS_QUICK

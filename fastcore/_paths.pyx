r"""Paths of a text, made in a fraction of the time that ``pathlib`` takes.

A path of one letter is three bytes of a message, and a stranger may send as many as fit into it.
To make one and look up its hash takes pathlib as long as reading hundreds of bytes of numbers. Here it is
taken apart once, and what pathlib would find out is put where it keeps that itself.

Those places are private, and differ between Pythons. They are named in ``made`` and nowhere else; on import
each way is tried, and where none makes what pathlib makes, pathlib makes the paths. It makes the strangest
ones of Windows anyway, such as ``\\.\device``: see ``drive_size``.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject_Hash
from cpython.unicode cimport PyUnicode_DecodeUTF8

from pathlib import PurePosixPath, PureWindowsPath

cdef extern from "Python.h":
    ctypedef struct PyTypeObject
    object PyType_GenericAlloc(PyTypeObject *of, Py_ssize_t items)

cdef enum Way:
    # As Python 3.11 has them: taken apart from the beginning.
    PARTS
    # From 3.12 on: the text that it is made of, and what was found out by those who asked.
    TEXT
    PATHLIB

cdef Way way = PATHLIB


# Those of one character at most: a message may hold very many, and has few of them.
cdef dict tiny = {}


def pack_path(path, inner):
    """Give the body of a path: what kind it is, and its text."""
    if isinstance(path, PureWindowsPath):
        return b"w" + str(path).encode("utf-8", "surrogatepass")
    return b"p" + str(path).encode("utf-8", "surrogateescape")


def unpack_path(body, inner):
    """Make the path of a body."""
    cdef bytes given = bytes(body)
    cdef const char *text = PyBytes_AS_STRING(given)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(given)
    if size <= 2 and given in tiny:
        return tiny[given]
    if text[0] == c"p":
        path = posix_path(PyUnicode_DecodeUTF8(text + 1, size - 1, "surrogateescape"))
    elif text[0] == c"w":
        path = windows_path(PyUnicode_DecodeUTF8(text + 1, size - 1, "surrogatepass"))
    else:
        raise ValueError(f"{given[:1]!r} is no kind of path")
    if size <= 2:
        tiny[given] = path
    return path


cpdef object posix_path(str text):
    """Make a PurePosixPath.

    Examples
    --------
    >>> posix_path('/usr//bin/./python')
    PurePosixPath('/usr/bin/python')
    """
    cdef str names = text
    cdef str root = ""
    cdef Py_ssize_t slashes
    if way == PATHLIB:
        return PurePosixPath(text)
    if text.startswith("/"):
        names = text.lstrip("/")
        slashes = len(text) - len(names)
        # Two mean something of their own to POSIX, and three don't.
        root = "//" if slashes == 2 else "/"
    return made(PurePosixPath, text, "", root, names_in(names, "/"), "/", False)


cpdef object windows_path(str text):
    r"""Make a PureWindowsPath.

    Examples
    --------
    >>> windows_path('c:/Windows\\.').parts
    ('c:\\', 'Windows')
    """
    cdef str drive = "", root = ""
    cdef str names = text.replace("/", "\\")
    cdef list tail
    cdef Py_ssize_t size
    if way == PATHLIB:
        return PureWindowsPath(text)
    if ":" in names or names.startswith("\\"):
        size = drive_size(names)
        if size < 0:
            return PureWindowsPath(text)
        drive, names = names[:size], names[size:]
        if names.startswith("\\") or size > 2 and (size != 6 or drive[2:4] != "?\\"):
            # What a server shares is a root in any case.
            root = "\\"
    tail = names_in(names, "\\")
    if tail and not drive and not root and is_drive(tail[0]):
        # A name that would be taken for a drive if nothing stood before it.
        return PureWindowsPath(text)
    return made(PureWindowsPath, text, drive, root, tail, "\\", True)


cdef Py_ssize_t drive_size(str names):
    """Characters of a path's drive, a letter or what a server shares; -1 for a strange one."""
    cdef Py_ssize_t server = 2, share
    if is_drive(names):
        return 2 if is_letter(names[0]) else -1
    if not names.startswith("\\\\"):
        return 0
    if names[2:4] == "?\\" and is_drive(names[4:6]):
        return 6 if is_letter(names[4]) and names[6:7] in ("", "\\") else -1
    if names.startswith("\\\\?\\UNC\\"):
        server = 8
    share = names.find("\\", server) + 1
    if not share or names[server:share - 1] in "?." or names[share:share + 1] in ("", "\\"):
        return -1
    return names.find("\\", share) if "\\" in names[share:] else len(names)


cdef inline bint is_drive(str text):
    return len(text) > 1 and text[1] == ":"


cdef inline bint is_letter(Py_UCS4 char):
    return char < 0x80 and char.isalpha()


cdef list names_in(str names, str separator):
    if separator not in names:
        return [] if not names or names == "." else [names]
    return [name for name in names.split(separator) if name and name != "."]


cdef object made(type kind, str text, str drive, str root, list names, str separator, bint folds):
    cdef str whole = names[0] if len(names) == 1 else separator.join(names) or "."
    cdef bint is_anchored = bool(drive) or bool(root)
    if is_anchored:
        whole = drive + root if not names else drive + root + whole
    path = PyType_GenericAlloc(<PyTypeObject *> kind, 0)
    path._str = whole
    if way == TEXT:
        path._raw_paths = [text]
        path._hash = PyObject_Hash(whole.lower() if folds else whole)
    else:
        path._drv = drive
        path._root = root
        path._parts = parts = [drive + root, *names] if is_anchored else names
        path._hash = PyObject_Hash(tuple([part.lower() for part in parts] if folds else parts))
    return path


cdef bint is_same(object made, object path):
    """Whether a path is what pathlib has made of the same text. Tests ask for far more."""
    return (
        made == path and hash(made) == hash(path) and str(made) == str(path) and made.parts == path.parts
        and made.parent == path.parent and made / "a" == path / "a" and made.__reduce__() == path.__reduce__()
    )


cdef tuple POSIX = ("", "A//b/.", "//a/b")
cdef tuple WINDOWS = ("A/b", "C:a", "\\\\s\\t\\U")


cdef Way way_that_works():
    global way
    for way in (TEXT, PARTS):
        try:
            if (
                all([is_same(posix_path(text), PurePosixPath(text)) for text in POSIX])
                and all([is_same(windows_path(text), PureWindowsPath(text)) for text in WINDOWS])
            ):
                return way
        except Exception:
            # Such a place isn't there.
            continue
    return PATHLIB


way = way_that_works()
IS_QUICK = way != PATHLIB

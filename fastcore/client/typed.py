"""Remote servers whose operations type checkers know. At run time, all of this is the rpc itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from tornado.iostream import IOStream

from fastcore.client.calls import RemoteCall
from fastcore.client.pool import RemoteServer
from fastcore.client.synchronous import SyncClient
from fastcore.logs import shown

__all__ = ["RemoteMethod", "RemoteStream", "remote_method", "typed"]

T = TypeVar("T")
P = ParamSpec("P")
Call = TypeVar("Call", covariant=True)
Item = TypeVar("Item")


class RemoteStream(Protocol[Item]):
    """The call of a handler that gives many answers: for annotations.

    ``async for`` gives each as it comes, ``await`` a list of them.
    """

    def __aiter__(self) -> AsyncIterator[Item]:
        """Give each answer as it comes."""
        ...

    def __await__(self) -> Generator[Any, Any, list[Item]]:
        """Give all of them."""
        ...

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the call up."""
        ...


def typed(remote: RemoteServer | SyncClient, interface: Callable[..., T]) -> T:
    """Give a remote server the type of what it serves.

    Parameters
    ----------
    remote : rpc, RPCCall or SyncClient
        The server.
    interface : type
        A Protocol, or another class, whose methods are the server's handlers as a caller sees them:
        without the stream, with arguments by keyword, and with a :class:`RemoteCall` or
        a :class:`RemoteStream` as result. For a SyncClient, the result is the answer itself.

    Returns
    -------
    rpc, RPCCall or SyncClient
        ``remote`` itself, which type checkers take for an ``interface``.

    Raises
    ------
    TypeError
        If ``remote`` is no remote server, or has an attribute of its own where the interface has an
        operation.

    Examples
    --------
    >>> import asyncio
    >>> from typing import Protocol
    >>> from fastcore import RemoteCall, RemoteStream, Server, rpc, typed
    >>> class Shop(Protocol):
    ...     def add(self, *, x: int, y: int) -> RemoteCall[int]: ...
    ...     def rows(self, *, count: int) -> RemoteStream[str]: ...
    >>> async def main():
    ...     server = Server({'add': lambda stream, x, y: x + y})
    ...     server.listen(0, '127.0.0.1')
    ...     async with rpc(ip='127.0.0.1', port=server.port) as remote:
    ...         shop = typed(remote, Shop)
    ...         print(await shop.add(x=1, y=2))
    ...     server.stop()
    >>> asyncio.run(main())
    3
    """
    if not isinstance(remote, RemoteServer | SyncClient):
        raise TypeError(f"a remote server is an rpc, of a pool or a SyncClient, not {shown(remote)}")
    own = {*dir(type(remote)), "ip", "port"}
    taken = sorted(name for name in {*dir(interface)} & own if not name.startswith("_"))
    if taken:
        raise TypeError(
            f"{getattr(interface, '__name__', interface)} has {', '.join(taken)}, "
            f"which is an attribute of each {type(remote).__name__} and no remote operation"
        )
    return cast(T, remote)


class RemoteMethod(Generic[P, Call]):
    """What :func:`remote_method` gives: a method, in a class that stands for a remote server."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self.handler = handler

    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, Call]:
        """Say what is called; the rpc is what calls it."""
        raise TypeError("a class of remote methods is for typed(remote, …), which calls them")


# A method's first parameter is its object. Those of many answers come first: the last kind is any.
@overload
def remote_method(  # type: ignore[overload-overlap]
    handler: Callable[Concatenate[IOStream, P], AsyncIterator[T] | Iterator[T]],
) -> RemoteMethod[P, RemoteStream[T]]: ...
@overload
def remote_method(  # type: ignore[overload-overlap]
    handler: Callable[Concatenate[Any, IOStream, P], AsyncIterator[T] | Iterator[T]],
) -> RemoteMethod[P, RemoteStream[T]]: ...
@overload
def remote_method(
    handler: Callable[Concatenate[IOStream, P], Awaitable[T]],
) -> RemoteMethod[P, RemoteCall[T]]: ...
@overload
def remote_method(
    handler: Callable[Concatenate[Any, IOStream, P], Awaitable[T]],
) -> RemoteMethod[P, RemoteCall[T]]: ...
@overload
def remote_method(handler: Callable[Concatenate[IOStream, P], T]) -> RemoteMethod[P, RemoteCall[T]]: ...
@overload
def remote_method(handler: Callable[Concatenate[Any, IOStream, P], T]) -> RemoteMethod[P, RemoteCall[T]]: ...
def remote_method(handler: Callable[..., Any]) -> RemoteMethod[Any, Any]:
    """Say of a handler how a caller sees it, so that its signature is written down once.

    Parameters
    ----------
    handler : callable
        Of a server: a function or a method, plain, a coroutine or a generator, with all its
        parameters annotated. Those behind a ``*`` can be given by keyword only, as remote
        calls have it.

    Returns
    -------
    RemoteMethod
        For a class that is given to :func:`typed`.

    Examples
    --------
    >>> from tornado.iostream import IOStream
    >>> from fastcore import remote_method
    >>> def add(stream: IOStream, *, x: int, y: int) -> int:
    ...     return x + y
    >>> class Shop:
    ...     add = remote_method(add)
    """
    return RemoteMethod(handler)

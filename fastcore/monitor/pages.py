"""What the monitor answers, by path."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any, Final

from tornado.web import Application, HTTPError, RequestHandler

from fastcore.logs import last_warnings
from fastcore.monitor.watched import OneServer, Watched
from fastcore.server.server import Server
from fastcore.server.snapshot import merge

__all__ = ["application"]

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    "page.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS: Final = {
    # The page has a script and a style of its own, asks here for figures, and that is all it may.
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_NO_PROMETHEUS: Final = "/metrics needs prometheus_client: pip install 'fastcore-rpc[prometheus]'\n"


def application(watched: Server | Watched, address: str) -> Application:
    """Make what answers HTTP requests.

    Parameters
    ----------
    watched : Server or Watched
        What to tell of.
    address : str
        Where it listens; on this machine's own addresses, only those who ask for such a one are answered.
    """
    if isinstance(watched, Server):
        watched = OneServer(watched)
    options = {"watched": watched, "local_only": _is_local(address)}
    return Application(
        [
            (r"/stats", _Stats, options),
            (r"/ops", _Ops, options),
            (r"/metrics", _Metrics, options),
            (r"/health", _HealthPage, options),
            (r"/live", _Live, options),
            (f"/({'|'.join(map(re.escape, _TYPES))}|)", _Page, options),
        ],
        default_handler_class=_Nothing,
        default_handler_args=options,
        # A line for each scrape says nothing that anybody wants to read.
        log_function=lambda handler: None,
    )


class _Handler(RequestHandler):
    """The headers of all answers, and to whom there are any."""

    def initialize(self, watched: Watched, local_only: bool) -> None:
        self.watched = watched
        self.local_only = local_only

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if self.local_only and not _is_numeric_or_local(self.request.host_name):
            raise HTTPError(403, reason="Ask for a numeric address or localhost")

    def head(self, *arguments: Any) -> Any:
        return self.get(*arguments)

    def tell(self, value: object) -> None:
        """Answer as JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")


class _Nothing(_Handler):
    def prepare(self) -> None:
        super().prepare()
        raise HTTPError(404)


class _Page(_Handler):
    """The page's own files, which come with the package."""

    def get(self, name: str) -> None:
        name = name or "page.html"
        self.set_header("Content-Type", _TYPES[name])
        self.finish((_STATIC / name).read_bytes())


class _Stats(_Handler):
    async def get(self) -> None:
        snapshots = await self.watched.snapshots()
        told = merge([*snapshots.values()])
        # Who ends, or hasn't begun, knows it better than each of its processes.
        told["health"] = self.watched.health
        if snapshots.keys() != {""}:
            told["workers"] = snapshots
            # Who looks after them logs, too.
            lines = [*told["warnings"], *last_warnings.as_list()]
            told["warnings"] = sorted(lines, key=lambda line: line["time"])
        self.tell(told)


class _Ops(_Handler):
    async def get(self) -> None:
        self.tell(await self.watched.ops())


class _Metrics(_Handler):
    async def get(self) -> None:
        try:
            from fastcore.monitor.metrics import exposition
        except ImportError:
            self.set_status(501)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(_NO_PROMETHEUS)
            return
        body, content_type = exposition(
            await self.watched.snapshots(), self.watched.health, self.request.headers.get("Accept", "")
        )
        self.set_header("Content-Type", content_type)
        self.finish(body)


class _HealthPage(_Handler):
    def get(self) -> None:
        health = self.watched.health
        self.set_status(200 if health == "ready" else 503)
        self._say(health)

    def _say(self, word: str) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(word)


class _Live(_HealthPage):
    def get(self) -> None:
        self._say("live")


def _is_local(address: str) -> bool:
    number = _number(address)
    return _is_localhost(address) if number is None else number.is_loopback


def _is_numeric_or_local(host: str) -> bool:
    name = host.strip("[]").lower()
    return _is_localhost(name) or _number(name) is not None


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _number(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None

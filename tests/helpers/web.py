"""Asking a monitor, over HTTP."""

import json
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse


async def get(port: int, path: str, **options: Any) -> HTTPResponse:
    """What it answers, also where that is an error."""
    request = HTTPRequest(f"http://127.0.0.1:{port}{path}", request_timeout=20, **options)
    return await AsyncHTTPClient().fetch(request, raise_error=False)


async def get_json(port: int, path: str) -> Any:
    """What it answers, read as JSON."""
    answer = await get(port, path)
    assert answer.code == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    return json.loads(answer.body)

"""Addresses beside the pages: what they hand out, and the one answer to all else."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from robustft import server
from robustft.types import RunRecord


def ask(path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Asks the routes as a web server does, without a network."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [], "root_path": "", "scheme": "http"}
    asyncio.run(Starlette(routes=server.routes())({**scope, "server": ("127.0.0.1", 1), "http_version": "1.1"}, receive, send))
    headers = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture(autouse=True)
def _root(finished_run: RunRecord, world_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTFT_CACHE", str(world_cache))


def test_a_picture_is_handed_out_and_may_be_kept() -> None:
    status, headers, content = ask("/thumb/food/color/3.webp")
    assert (status, headers["content-type"], content[:4]) == (200, "image/webp", b"RIFF")
    assert "max-age" in headers["cache-control"] and headers["x-content-type-options"] == "nosniff"
    assert ask("/thumb/food/all domains/700.webp")[0] == 200


@pytest.mark.parametrize("path", ["/thumb/food/color/384.webp", "/thumb/none/color/1.webp", "/thumb/food/../1.webp", "/thumb/food/..%2f..%2f/1.webp"])
def test_whatever_else_is_not_there(path: str) -> None:
    status, _, content = ask(path)
    assert status == 404 and len(content) < 20


def test_nothing_can_be_written() -> None:
    assert ask("/thumb/food/color/3.webp", "POST")[0] == 405

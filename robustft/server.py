"""Addresses that the web server answers beside the pages: a picture of a sample."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .store import default_root
from .thumbnails import thumbnail
from .types import UserError

KEEP_SECONDS = 3600


async def picture(request: Request) -> Response:
    """Answers ``thumb/<task>/<domain>/<row>.webp``; whatever else is asked for is not there."""
    asked = request.path_params
    try:
        content = await run_in_threadpool(thumbnail, asked["task"], asked["domain"], asked["row"], default_root())
    except (UserError, OSError):
        return Response("not there", status_code=404, media_type="text/plain")
    headers = {"cache-control": f"private, max-age={KEEP_SECONDS}", "x-content-type-options": "nosniff"}
    return Response(content, media_type="image/webp", headers=headers)


def routes() -> list[Route]:
    """Returns what is answered beside the pages."""
    return [Route("/thumb/{task:str}/{domain:str}/{row:int}.webp", picture, methods=["GET"])]

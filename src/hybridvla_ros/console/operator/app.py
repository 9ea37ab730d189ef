"""The page's HTTP and WebSocket side, without ROS: who may ask, and what is answered.

The stop needs no token; everything that moves or resumes does. Every request must name this computer in `Host` (otherwise a
page of another site could come here under a name of its own), and no other site in `Origin`.
"""
from __future__ import annotations

import asyncio
import hmac
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Protocol, Tuple
from urllib.parse import urlsplit

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

FILES = {"": ("page.html", "text/html"), "page.js": ("page.js", "text/javascript"), "page.css": ("page.css", "text/css")}
HEADERS = {"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
           "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"}
FREE = ("stop",)
GUARDED = ("activate", "deactivate", "resume", "reenter", "go_to_start", "instruction", "episode_start", "episode_success",
           "episode_failure", "episode_discard")
NAMES = ("127.0.0.1", "localhost", "[::1]")
LONGEST_BODY, PERIOD_S = 8192, 0.1
#: Threads reserved for the stop: no other call that hangs keeps it from being tried.
STOPS = 8
NO_NAME = "this page answers under the names of its own computer only; for another one use ssh -L"


class DeskInterface(Protocol):
    """What the page needs from the robot's side."""

    def snapshot(self) -> Dict[str, Any]:
        """Returns everything shown, for JSON."""

    def picture(self, view: str) -> Optional[bytes]:
        """Returns a JPEG."""

    def act(self, name: str, text: str = "") -> Tuple[bool, str]:
        """Does one of FREE and GUARDED."""


def refusal(connection: HTTPConnection) -> str:
    """Says from its headers why a request is refused; empty otherwise."""
    origin = connection.headers.get("origin")
    try:
        host = urlsplit(f"//{connection.headers.get('host', '')}")
        theirs = None if origin is None else urlsplit(origin).netloc
    except ValueError:
        return NO_NAME
    name = f"[{host.hostname}]" if host.hostname and ":" in host.hostname else host.hostname
    if name not in NAMES:
        return NO_NAME
    if theirs is not None and theirs != host.netloc:
        return "requests from the page of another site are refused"
    return ""


def application(desk: DeskInterface, token: str) -> Starlette:
    """Makes the application; token: what every request that moves the robot must send as `Authorization: Bearer TOKEN`."""
    folder = Path(__file__).parent

    def checked(handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            why = refusal(request)
            if why:
                return JSONResponse({"done": False, "message": why}, 403, HEADERS)
            response: Response = await handle(request)
            response.headers.update(HEADERS)
            return response
        return answer

    async def page(request: Request) -> Response:
        name, kind = FILES[request.path_params.get("file", "")]
        return Response((folder / name).read_text(encoding="utf-8"), media_type=kind)

    async def picture(request: Request) -> Response:
        data = await run_in_threadpool(desk.picture, request.path_params["view"])
        return Response(status_code=404) if data is None else Response(data, media_type="image/jpeg")

    async def act(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FREE + GUARDED:
            return JSONResponse({"done": False, "message": f"there is no {name}"}, 404)
        shown = request.headers.get("authorization", "").encode("utf-8", "replace")
        if name not in FREE and not hmac.compare_digest(shown, f"Bearer {token}".encode()):
            advice = "open the page by the address that the node printed: it has the token"
            return JSONResponse({"done": False, "message": advice}, 403)
        text = ""
        if name == "instruction":
            try:
                text = await _text(request)
            except ValueError as error:
                return JSONResponse({"done": False, "message": str(error)}, 400)
        done, message = await anyio.to_thread.run_sync(desk.act, name, text, limiter=stops() if name in FREE else None)
        return JSONResponse({"done": done, "message": message})

    @lru_cache(maxsize=1)
    def stops() -> anyio.CapacityLimiter:      # belongs to the event loop that serves
        return anyio.CapacityLimiter(STOPS)

    async def live(socket: WebSocket) -> None:
        if refusal(socket):
            await socket.close(1008)
            return
        await socket.accept()
        listener = asyncio.ensure_future(socket.receive())      # ends when the page goes
        try:
            while not listener.done():
                await socket.send_text(json.dumps(desk.snapshot()))
                await asyncio.wait({listener}, timeout=PERIOD_S)
        except (WebSocketDisconnect, RuntimeError):
            pass        # the page left while something was sent
        finally:
            listener.cancel()

    return Starlette(routes=[
        Route("/", checked(page)), Route("/{file:str}", checked(_known(page))), Route("/view/{view}", checked(picture)),
        Route("/do/{name}", checked(act), methods=["POST"]), WebSocketRoute("/live", live)])


def _known(page: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        if request.path_params["file"] not in FILES:
            return Response(status_code=404)
        response: Response = await page(request)
        return response
    return answer


async def _text(request: Request) -> str:
    """Returns `text` of a JSON body, whose length is limited; the ValueError says what is wrong."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise ValueError("the instruction is too long")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("the body is not JSON") from error
    text = given.get("text") if isinstance(given, dict) else None
    if not isinstance(text, str):
        raise ValueError('the body must be {"text": "..."}')
    try:
        text.encode()
    except UnicodeEncodeError as error:     # half of a pair of surrogates
        raise ValueError("the instruction has an invalid character") from error
    return text

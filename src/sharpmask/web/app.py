"""The server as an ASGI application: endpoints, page, checks, and errors as JSON."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

import sharpmask
from sharpmask.errors import ConfigError, ImageError, MissingExtraError, SharpMaskError
from sharpmask.web.api import ClientGone, State, make_router, problem_of
from sharpmask.web.engine import Propose
from sharpmask.web.guards import BodyLimit, SamePage, SecurityHeaders
from sharpmask.web.jobs import Busy, Stopped, TimedOut, Worker
from sharpmask.web.limits import Limits
from sharpmask.web.metrics import CountRequests, Metrics
from sharpmask.web.uploads import Refused

STATIC = Path(__file__).parent / "static"
_ABOUT = (
    "Every object in a photo as a ranked, class-agnostic mask. All sizes are in pixels; masks are COCO's compressed "
    "run-length code of the whole image, which `pycocotools.mask.decode` reads."
)


def create_app(
    propose: Propose, *, model: str, limits: Limits | None = None, hosts: Sequence[str] = (), local: bool = True
) -> FastAPI:
    """The application; its threads start with its lifespan and end with it.

    Args:
        propose: what searches an image (see `sharpmask.web.engine`).
        model: its name, for those who ask.
        limits: what clients may ask.
        hosts: names besides localhost and addresses in numbers by which clients call the server.
        local: whether only this machine can reach it; the page says so.
    """
    limits = limits or Limits()
    metrics = Metrics()
    state = State(propose, model, limits, local, metrics, Worker("model", limits.queue), Worker("files", limits.queue))
    metrics.watch(state.model_worker)
    workers = (state.model_worker, state.file_worker)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for worker in workers:
            worker.start()
        yield
        for worker in workers:
            worker.close()

    app = FastAPI(
        title="sharpmask",
        version=sharpmask.__version__,
        description=_ABOUT,
        docs_url=None,  # FastAPI's pages load their code from elsewhere; /docs is ours
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )

    def stop_work() -> None:
        for worker in workers:
            worker.stop()

    app.state.stop_work = stop_work  # called before the server waits for its last answers
    app.include_router(make_router(state))
    _add_pages(app)
    _add_errors(app, limits)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, max_body=limits.max_body, timeout=limits.timeout)
    app.add_middleware(SamePage, hosts=hosts)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(CountRequests, metrics=metrics)
    return app


def _add_pages(app: FastAPI) -> None:
    fresh = {"cache-control": "no-cache"}  # asked for again each time, so that an update of the package shows

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=fresh)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html", headers=fresh)

    app.mount("/static", _Static(directory=STATIC), name="static")


class _Static(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def _add_errors(app: FastAPI, limits: Limits) -> None:
    def answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": detail}, status, headers)

    async def expected(request: Request, error: Exception) -> JSONResponse:
        headers = {"retry-after": str(error.retry_after)} if isinstance(error, Busy) else None
        return answer(*problem_of(error, limits), headers)

    for kind in (Refused, Busy, TimedOut):
        app.add_exception_handler(kind, expected)

    @app.exception_handler(SharpMaskError)
    async def refused_by_package(request: Request, error: SharpMaskError) -> JSONResponse:
        asked_for = isinstance(error, (ConfigError, ImageError))  # else the server's model or disk is at fault
        return answer(501 if isinstance(error, MissingExtraError) else 422 if asked_for else 500, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return answer(422, f"{where}: {first['msg'].removeprefix('Value error, ')}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(ClientGone)
    async def nobody_waits(request: Request, error: Exception) -> JSONResponse:
        return answer(499, "the client closed the connection")

    @app.exception_handler(Stopped)
    async def stopping(request: Request, error: Exception) -> JSONResponse:
        return answer(503, "the server is being stopped")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return answer(500, "an error within the server; its log tells more")

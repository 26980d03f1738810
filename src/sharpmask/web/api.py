"""The endpoints of the JSON API. A request is checked in the event loop, as far as that is cheap, and worked on in one
of two threads: one for the model, one for the rest."""

import asyncio
import io
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image

import sharpmask
from sharpmask.formats import PHOTO_FORMATS
from sharpmask.proposals.result import Proposals
from sharpmask.web import schemas
from sharpmask.web.engine import Propose
from sharpmask.web.export import MEDIA_TYPES, OTHER_TYPE, check_export, export
from sharpmask.web.jobs import Busy, Stop, Stopped, TimedOut, Worker
from sharpmask.web.limits import Limits
from sharpmask.web.metrics import CONTENT_TYPE, Metrics
from sharpmask.web.schemas import ExportRequest, ProposalSettings
from sharpmask.web.uploads import Refused, Upload, check_image, decode, read_many, read_one

T = TypeVar("T")
Settings = Annotated[ProposalSettings, Query()]
PICTURE_SIDE = 4096


@dataclass
class State:
    """What the endpoints share."""

    propose: Propose
    model: str
    limits: Limits
    local: bool
    metrics: Metrics
    model_worker: Worker
    file_worker: Worker  # exports and pictures, so that they need not wait for the model


def make_router(state: State) -> APIRouter:
    router = APIRouter()
    limits, metrics = state.limits, state.metrics

    async def search(request: Request, upload: Upload, settings: ProposalSettings) -> dict[str, Any]:
        def work(stop: Stop) -> tuple[Proposals, float]:
            pixels = decode(upload, limits.max_pixels)
            if stop():
                raise Stopped
            begin = time.monotonic()
            found = state.propose(pixels, settings, stop)
            return found, time.monotonic() - begin

        try:
            # In a thread: a header that was made to be slow must not stop the server.
            await asyncio.to_thread(check_image, upload, limits.max_pixels)
            found, seconds = await _while_connected(request, state.model_worker.run(work, limits.timeout))
        except Exception:
            metrics.images.labels("failed").inc()
            raise
        metrics.images.labels("done").inc()
        metrics.masks.inc(len(found))
        metrics.image_seconds.observe(seconds)
        return _describe(upload.name, found, seconds)

    @router.post(
        "/v1/proposals",
        tags=["Masks"],
        response_model=schemas.Found,
        responses=_problems(408, 413, 415, 422, 429, 504),
        openapi_extra=_body(
            {
                "multipart/form-data": _FILE,
                "application/octet-stream": _BYTES,
                "image/jpeg": _BYTES,
                "image/png": _BYTES,
            }
        ),
    )
    async def proposals(request: Request, settings: Settings) -> Response:
        """Find the objects of one image: a file in the field `file`, or the bytes of one as the body (any `image/…` or
        `application/octet-stream`)."""
        state.model_worker.check_room()  # before a body is read that would be refused
        upload = await read_one(request)
        return JSONResponse(await search(request, upload, settings))

    @router.post(
        "/v1/proposals/batch",
        tags=["Masks"],
        response_model=schemas.Batch,
        responses=_problems(408, 413, 415, 422, 429),
        openapi_extra=_body({"multipart/form-data": _FILES}),
    )
    async def batch(request: Request, settings: Settings) -> Response:
        """Find the objects of several images, one after the other. A file that fails has its error in its place; the
        time limit holds for each file."""
        state.model_worker.check_room()
        results: list[dict[str, Any]] = []
        for upload in await read_many(request, limits):
            try:
                results.append(await search(request, upload, settings))
            except (Refused, Busy, TimedOut) as error:
                status, detail = problem_of(error, limits)
                results.append({"file_name": upload.name, "status": status, "detail": detail})
        return JSONResponse({"results": results})

    @router.post(
        "/v1/export",
        tags=["Export"],
        response_class=Response,
        responses={
            200: {
                "description": "The file, or a ZIP where the format has several; the header says its name.",
                "content": {kind: {} for kind in sorted({*MEDIA_TYPES.values(), OTHER_TYPE})},
            },
            **_problems(408, 413, 422, 429, 501, 504),
        },
    )
    async def write_export(request: Request, wanted: ExportRequest) -> Response:
        """Write masks in a format of another program. Masks and scores are those that `/v1/proposals` gave; nothing is
        kept between the two. Status 501: the format's package is not installed on the server."""

        def work(stop: Stop) -> Any:
            return export(wanted, check_export(wanted, limits), stop)

        file = await _while_connected(request, state.file_worker.run(work, limits.timeout))
        disposition = f"attachment; filename*=utf-8''{quote(file.name, safe='')}"
        return Response(file.data, media_type=file.media_type, headers={"content-disposition": disposition})

    @router.post(
        "/v1/picture",
        tags=["Masks"],
        response_class=Response,
        responses={
            200: {"description": "The picture.", "content": {"image/jpeg": _BYTES}},
            **_problems(408, 413, 415, 422, 429, 504),
        },
        openapi_extra=_body({"multipart/form-data": _FILE, "application/octet-stream": _BYTES}),
    )
    async def picture(request: Request) -> Response:
        """The image as the masks see it (upright, 8 bits, no transparency), as JPEG of at most 4096 pixels a side: for
        a browser that cannot show its format."""
        state.file_worker.check_room()
        upload = await read_one(request)
        await asyncio.to_thread(check_image, upload, limits.max_pixels)

        def work(stop: Stop) -> bytes:
            image = Image.fromarray(decode(upload, limits.max_pixels))
            image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=90)
            return file.getvalue()

        data = await _while_connected(request, state.file_worker.run(work, limits.timeout))
        return Response(data, media_type="image/jpeg")

    @router.get("/v1/info", tags=["Server"])
    async def info() -> schemas.Info:
        """The version, the model, the export formats and the limits."""
        return schemas.Info(
            version=sharpmask.__version__,
            model=state.model,
            formats=list(PHOTO_FORMATS),
            max_body=limits.max_body,
            max_pixels=limits.max_pixels,
            max_files=limits.max_files,
            timeout=limits.timeout,
            local=state.local,
        )

    @router.get("/healthz", tags=["Server"], response_model=schemas.Health, responses={503: {"model": schemas.Health}})
    async def health() -> JSONResponse:
        """Whether the server can work: 200, or 503 when one of its threads has ended."""
        worker = state.model_worker
        alive = worker.alive and state.file_worker.alive
        report = schemas.Health(status="ok" if alive else "broken", waiting=worker.waiting, running=worker.running)
        return JSONResponse(report.model_dump(), 200 if alive else 503)

    @router.get(
        "/metrics",
        tags=["Server"],
        response_class=Response,
        responses={200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def show_metrics() -> Response:
        """Counters and times in the text format of Prometheus."""
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    return router


def problem_of(error: Exception, limits: Limits) -> tuple[int, str]:
    """The status and text of an expected failure."""
    if isinstance(error, Refused):
        return error.status, error.detail
    if isinstance(error, Busy):
        return 429, f"too many images are waiting; try again in {error.retry_after} s"
    if isinstance(error, TimedOut):
        return 504, f"not done within {limits.timeout:g} s; take a smaller image, fewer masks or less zoom"
    raise error


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is given up when the client goes. The body must have been read."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(leave())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def _describe(name: str, found: Proposals, seconds: float) -> dict[str, Any]:
    """A `schemas.Found`."""
    height, width = found.image_size
    entries = zip(found.to_coco(image_id=1), found.areas.tolist(), strict=True)
    return {
        "image": {"file_name": name, "width": width, "height": height},
        "proposals": [
            {"score": entry["score"], "bbox": entry["bbox"], "area": area, "segmentation": entry["segmentation"]}
            for entry, area in entries
        ],
        "seconds": round(seconds, 3),
    }


_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_FILE: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
        "additionalProperties": False,
    }
}
_FILES: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["files"],
        "properties": {"files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
        "additionalProperties": False,
    }
}
_MEANINGS = {
    400: "The host name is not this server's, or the body cannot be parsed.",
    403: "The request comes from the page of another site.",
    408: "The body took too long to arrive.",
    413: "The body, an image or a number of things is larger than allowed.",
    415: "The body is no image, or of a type that is not read.",
    422: "A setting, a mask or the image's data is wrong.",
    429: "The queue is full; the header `Retry-After` says when to try again.",
    501: "The format needs a package that the server does not have.",
    503: "The server is being stopped.",
    504: "It took too long and was given up.",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.Problem, "description": _MEANINGS[status]}
        for status in sorted({400, 403, 503, *statuses})
    }
    if 429 in found:
        found[429]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return found


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}

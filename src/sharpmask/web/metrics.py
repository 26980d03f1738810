"""What the server has done, for Prometheus."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharpmask.web.jobs import Worker

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one server; each server has its own, so that several in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sharpmask_requests", "Answered requests.", ["path", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "sharpmask_request_seconds",
            "Time from request to answer.",
            ["path"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.images = Counter("sharpmask_images", "Images by outcome.", ["outcome"], registry=self.registry)
        self.masks = Counter("sharpmask_masks", "Masks found.", registry=self.registry)
        self.image_seconds = Histogram(
            "sharpmask_image_seconds", "Work on an image without waiting.", registry=self.registry, buckets=_SECONDS
        )
        for outcome in ("done", "failed"):
            self.images.labels(outcome)

    def watch(self, worker: Worker) -> None:
        """Add the queue of the thread that runs the model."""
        depth = Gauge("sharpmask_queue_depth", "Images that wait.", registry=self.registry)
        depth.set_function(lambda: worker.waiting)
        running = Gauge("sharpmask_working", "1 while an image is worked on.", registry=self.registry)
        running.set_function(lambda: worker.running)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class CountRequests:
    """Counts every request, also those that are refused before they reach an endpoint."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        begin = time.monotonic()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            # The template of the address and not what a client made up: the number of series stays small.
            path = getattr(scope.get("route"), "path", None) or "other"
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
            self.metrics.requests.labels(path, method, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - begin)

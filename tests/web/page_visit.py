"""A page that is open in the browser, for the tests of what people do with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request

from browser_waits import PATIENCE, expect, settles


@dataclass
class Visit:
    """A page that is open, and what went over the wire."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        if "getImageData" not in message.text:  # Chromium's advice about `inked` below
            self.complaints.append(f"{message.type}: {message.text}")

    def searches(self) -> int:
        return sum("/v1/proposals" in request.url for request in self.requests)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Shares of the photo to a place on the screen."""
        box = self.page.locator("canvas.photo").bounding_box()
        assert box is not None
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def choose(self, data: bytes, name: str = "beach.png") -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("#choose, #another").locator("visible=true").click()
        chooser.value.set_files([{"name": name, "mimeType": "", "buffer": data}])

    def shown(self) -> list[int]:
        """Ids of the masks that can be pointed at."""
        options = self.page.locator("#options [role=option]")
        return [int(name.removeprefix("mask-")) for name in options.evaluate_all("all => all.map(one => one.id)")]

    def kept(self) -> list[int]:
        options = self.page.locator("#options [aria-selected=true]")
        return [int(name.removeprefix("mask-")) for name in options.evaluate_all("all => all.map(one => one.id)")]

    def current(self) -> int | None:
        name = self.page.locator("#stage").get_attribute("aria-activedescendant")
        return None if name is None else int(name.removeprefix("mask-"))

    def shows(self, *masks: int) -> None:
        """Wait until just these can be pointed at."""
        settles(self.page, self.shown, list(masks))

    def keeps(self, *masks: int) -> None:
        settles(self.page, self.kept, list(masks))

    def points_at(self, mask: int | None) -> None:
        settles(self.page, self.current, mask)

    def complains(self, *parts: str) -> None:
        """Wait for just these complaints, which are then forgiven."""
        settles(self.page, lambda: len(self.complaints), len(parts))
        assert all(part in text for part, text in zip(parts, self.complaints, strict=True)), self.complaints
        self.complaints.clear()

    def inked(self, layer: str, wanted: dict[tuple[float, float], bool]) -> None:
        """Wait until a canvas has something at these places of the photo, or nothing."""
        script = """(canvas, [x, y]) =>
            canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data[3]"""
        canvas = self.page.locator(f"canvas.{layer}")
        settles(self.page, lambda: {place: canvas.evaluate(script, [*place]) > 0 for place in wanted}, wanted)


@contextmanager
def visits(browser: Browser, address: str) -> Iterator[Callable[..., Visit]]:
    """See the fixture `visit`."""
    opened = []

    def open_page(path: str = "/", **options: Any) -> Visit:
        context = browser.new_context(**options)
        context.set_default_timeout(1000 * PATIENCE)
        visit = Visit(context.new_page())
        opened.append(visit)
        visit.page.on("request", lambda request: visit.requests.append(request))
        visit.page.on("console", visit.note)
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        # Playwright takes over file dialogs some time after the first one asks for it; too late for the Enter key.
        visit.page.on("filechooser", lambda chooser: None)
        visit.page.goto(address + path)
        if path == "/":  # the server's answer about itself changes the page's height
            expect(visit.page.locator("#kinds")).to_contain_text("megapixels")
        return visit

    yield open_page
    for visit in opened:
        visit.page.context.close()
        hosts = {urlsplit(request.url).netloc for request in visit.requests if not request.url.startswith("blob:")}
        assert hosts == {urlsplit(address).netloc}
        assert visit.complaints == []

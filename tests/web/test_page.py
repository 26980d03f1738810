"""The page in a real Chromium: what a person does with mouse, finger and keyboard, and what comes of it."""

import base64
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response
from pycocotools import mask as coco_mask
from web_fakes import FakeModel, encoded, known_masks, running

from browser_waits import PATIENCE, expect, settles
from sharpmask.formats import PHOTO_FORMATS
from sharpmask.proposals.result import Proposals
from sharpmask.web.api import _describe
from sharpmask.web.app import create_app
from sharpmask.web.limits import Limits

SIZE = (200, 300)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


@pytest.fixture
def address(model: FakeModel) -> Iterator[str]:
    with running(create_app(model, model="fake", limits=Limits(queue=1))) as address:
        yield address


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


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Visit]]:
    """Opens the page; at the end every request must have stayed on this server and nothing may have been complained
    about."""
    visits = []

    def open_page(path: str = "/", **options: Any) -> Visit:
        context = browser.new_context(**options)
        context.set_default_timeout(1000 * PATIENCE)
        visit = Visit(context.new_page())
        visits.append(visit)
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
    for visit in visits:
        visit.page.context.close()
        hosts = {urlsplit(request.url).netloc for request in visit.requests if not request.url.startswith("blob:")}
        assert hosts == {urlsplit(address).netloc}
        assert visit.complaints == []


@pytest.fixture
def beach(visit: Callable[..., Visit]) -> Visit:
    """The page with the masks of a picture."""
    opened = visit()
    opened.choose(encoded(300, 200))
    expect(opened.page.locator("#about")).to_contain_text("5 masks found")
    return opened


def _transfer(page: Page, data: bytes, name: str, kind: str) -> Any:
    """What a browser hands over with a drop or a paste."""
    script = """([text, name, type]) => {
        const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type }));
        return transfer;
    }"""
    return page.evaluate_handle(script, [base64.b64encode(data).decode(), name, kind])


def test_drop_hover_click_and_export(visit: Callable[..., Visit], tmp_path: Path) -> None:
    """The whole way of a person with a mouse."""
    here = visit()
    page = here.page
    transfer = _transfer(page, encoded(300, 200), "beach.png", "image/png")
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#dropping")).to_be_visible()
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect(page.locator("#dropping")).to_be_hidden()
    expect(page.locator("#about")).to_have_text("5 masks found, 4 shown. Click one to keep it.")
    here.shows(0, 2, 3, 4)  # 1 nearly repeats 0
    here.inked("masks", {(0.8, 0.5): True, (0.95, 0.5): False})

    page.mouse.move(*here.point(0.35, 0.35))  # in the smallest of three nested masks
    here.points_at(4)
    expect(page.locator("#about")).to_have_text("Mask 5 · score 0.40 · 1.0 % · 1 of 3 here")
    here.inked("current", {(0.35, 0.35): True, (0.45, 0.5): False})
    page.mouse.move(*here.point(0.45, 0.5))
    here.points_at(2)
    page.mouse.move(*here.point(0.15, 0.8))
    here.points_at(0)
    page.mouse.move(*here.point(0.65, 0.5))
    here.points_at(None)

    page.mouse.click(*here.point(0.45, 0.5))
    page.mouse.click(*here.point(0.8, 0.5))
    page.mouse.click(*here.point(0.35, 0.35))
    here.keeps(2, 3, 4)
    page.mouse.click(*here.point(0.35, 0.35))  # not, after all
    here.keeps(2, 3)
    here.inked("kept", {(0.45, 0.5): True, (0.15, 0.8): False})
    expect(page.locator("#kept canvas")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export 2 masks").click()
    assert download.value.suggested_filename == "beach-coco.zip"
    download.value.save_as(tmp_path / "coco.zip")
    with zipfile.ZipFile(tmp_path / "coco.zip") as archive:
        entries = json.loads(archive.read("proposals.json"))
    assert [entry["score"] for entry in entries] == [0.9, 0.7]
    masks = [coco_mask.decode(entry["segmentation"]) for entry in entries]
    assert np.array_equal(masks, known_masks(*SIZE)[[2, 3]])
    assert here.searches() == 1


def test_every_format_can_be_exported(beach: Visit, tmp_path: Path) -> None:
    page = beach.page
    page.get_by_role("button", name="Keep all shown").click()
    page.get_by_label("Class name").fill("Möwe")
    names = set()
    for name in PHOTO_FORMATS:
        page.get_by_label("Format").select_option(name)
        shapes = page.get_by_label("Shapes")
        assert shapes.is_visible() == (name in ("cvat", "label-studio", "labelme"))
        if shapes.is_visible():
            shapes.select_option("polygons")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export 4 masks").click()
        target = tmp_path / name
        download.value.save_as(target)
        names.add(download.value.suggested_filename)
        if name == "labelme":
            shapes_written = json.loads(target.read_text())["shapes"]
            assert [(shape["label"], shape["shape_type"]) for shape in shapes_written] == [("Möwe", "polygon")] * 4
        if name == "label-map":
            assert np.array_equal(np.unique(np.asarray(Image.open(target))), [0, 1, 3])  # 2 and 4 lie within 1
    assert len(names) == len(PHOTO_FORMATS)
    expect(page.locator("#status")).not_to_have_class("bad")


def test_keyboard_alone(visit: Callable[..., Visit]) -> None:
    here = visit()
    page = here.page
    page.keyboard.press("Tab")  # past the name, the API, the theme
    while page.evaluate("document.activeElement.id") != "choose":
        page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([{"name": "beach.png", "mimeType": "image/png", "buffer": encoded(300, 200)}])
    expect(page.locator("#about")).to_contain_text("5 masks found")
    stage = page.get_by_role("listbox", name="Masks of the picture")
    expect(stage).to_be_focused()
    expect(stage).to_have_css("outline-style", "solid")  # the focus can be seen

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    for key, current in [
        ("ArrowRight", 0),
        ("ArrowRight", 2),
        ("ArrowUp", 0),  # the larger one at the middle of mask 2
        ("ArrowDown", 2),
        ("End", 4),
        ("Home", 0),
        ("ArrowLeft", 0),  # there is none before
    ]:
        press(key)
        here.points_at(current)
    press("Space", "ArrowRight", "Enter")
    here.keeps(0, 2)
    option = page.get_by_role("option", name="Mask 3, score 0.90, 12 % of the picture")
    expect(option).to_have_attribute("aria-selected", "true")
    press("Escape")
    here.points_at(None)
    here.keeps(0, 2)
    press("Escape")
    here.keeps()
    press("Control+z")
    here.keeps(0, 2)
    press("Control+a")
    here.keeps(0, 2, 3, 4)
    press("Control+z", "Control+z", "Control+z", "Control+z", "Control+z")
    here.keeps()
    press("ArrowRight", "Space", "Tab")
    expect(page.locator("#smaller")).to_be_focused()
    # To the export, by Tab only.
    for _ in range(30):
        if page.evaluate("document.activeElement.id") == "export-button":
            break
        page.keyboard.press("Tab")
    with page.expect_download():
        page.keyboard.press("Enter")


def test_sliders_act_at_once_and_without_the_server(beach: Visit) -> None:
    page = beach.page
    before = len(beach.requests)

    def set_slider(label: str, *keys: str, shows: list[int]) -> None:
        slider = page.get_by_label(label)
        slider.focus()
        for key in keys:
            slider.press(key)
        beach.shows(*shows)

    set_slider("Overlap at most (IoU)", "End", shows=[0, 1, 2, 3, 4])
    set_slider("Overlap at most (IoU)", "Home", shows=[0, 3])
    set_slider("Overlap at most (IoU)", "End", shows=[0, 1, 2, 3, 4])
    set_slider("Masks at most", "Home", shows=[0])
    set_slider("Masks at most", "ArrowRight", "ArrowRight", shows=[0, 1, 2])
    set_slider("Masks at most", "End", shows=[0, 1, 2, 3, 4])
    set_slider("Score at least", "End", shows=[0])
    set_slider("Score at least", "Home", "ArrowRight", shows=[0, 1, 2, 3])
    set_slider("Score at least", "Home", shows=[0, 1, 2, 3, 4])
    expect(page.get_by_label("Area at least")).to_have_attribute("aria-valuetext", "any")
    areas = known_masks(*SIZE).sum(axis=(1, 2))
    large = [i for i, area in enumerate(areas) if area >= 0.1 * SIZE[0] * SIZE[1]]
    assert large == [0, 1, 2, 3]
    set_slider("Area at least", *["PageUp"] * 8, shows=large)  # 80 of 100: a tenth of the picture
    set_slider("Area at least", "Home", shows=[0, 1, 2, 3, 4])
    set_slider("Area at most", *["PageDown"] * 3, shows=[4])  # at most 70 of 100: a thirtieth
    # Kept masks stay, whatever the sliders say.
    set_slider("Area at most", "End", shows=[0, 1, 2, 3, 4])
    page.mouse.click(*beach.point(0.35, 0.35))
    set_slider("Masks at most", "Home", shows=[0, 4])
    beach.keeps(4)
    assert len(beach.requests) == before


def test_phone(visit: Callable[..., Visit]) -> None:
    here = visit(**PHONE)
    page = here.page

    def fits() -> bool:
        return page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    assert fits()
    here.choose(encoded(300, 200))
    expect(page.locator("#about")).to_contain_text("5 masks found")
    assert fits()
    page.touchscreen.tap(*here.point(0.35, 0.35))
    here.points_at(4)
    here.keeps(4)
    page.get_by_role("button", name="Larger").tap()
    here.points_at(2)
    here.keeps(4)
    page.locator("#keep").tap()
    here.keeps(2, 4)
    expect(page.locator("#keep")).to_have_text("Remove")
    # The photo stays in sight while its sliders are moved.
    page.get_by_label("Area at most").scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, 500)")
    box = page.locator("#stage").bounding_box()
    assert box is not None and box["y"] == 0 and box["height"] <= 0.5 * 844
    slider = page.get_by_label("Masks at most")
    assert slider.evaluate("element => element.getBoundingClientRect().height") >= 32
    for button in page.get_by_role("button").all():
        if button.is_visible():
            size = button.bounding_box()
            assert size is not None and size["height"] >= 36 and size["width"] >= 30, button.inner_text()
    with page.expect_download():
        page.get_by_role("button", name="Export 2 masks").tap()
    assert fits()


def test_paste_and_another_picture(beach: Visit) -> None:
    page = beach.page
    page.mouse.click(*beach.point(0.8, 0.5))
    beach.keeps(3)
    transfer = _transfer(page, encoded(240, 240), "", "image/png")
    page.evaluate(
        "(clipboardData) => dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true }))", transfer
    )
    expect(page.locator("#number")).to_have_text("0")
    expect(page.locator("#about")).to_contain_text("5 masks found")
    box = page.locator("#stage").bounding_box()
    assert box is not None and box["width"] == pytest.approx(box["height"], abs=1)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_pictures_that_the_browser_shows_otherwise(visit: Callable[..., Visit], kind: str) -> None:
    """A format that it cannot show, and one that it turns as the server does."""
    here = visit()
    exif = Image.Exif()
    exif[0x0112] = 6
    here.choose(encoded(300, 200, kind, exif=exif), f"scan.{kind.lower()}")
    expect(here.page.locator("#about")).to_contain_text("5 masks found")
    assert sum("/v1/picture" in request.url for request in here.requests) == (kind == "TIFF")
    box = here.page.locator("#stage").bounding_box()
    assert box is not None and box["width"] / box["height"] == pytest.approx(2 / 3, abs=0.01)
    here.inked("photo", {(0.9, 0.1): True})
    here.page.mouse.click(*here.point(0.8, 0.5))
    here.keeps(3)


def test_what_is_no_picture(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.choose(b"no picture at all", "notes.txt")
    expect(here.page.locator("#status.bad")).to_contain_text("notes.txt: not an image of a known format")
    expect(here.page.locator("#drop")).to_be_visible()
    here.complains("status of 415")  # Chromium reports every refusal
    here.choose(encoded(30, 20))
    expect(here.page.locator("#about")).to_contain_text("5 masks found")
    expect(here.page.locator("#status.bad")).to_have_count(0)
    # Work is not lost by a wrong file.
    here.page.mouse.click(*here.point(0.8, 0.5))
    here.choose(b"no picture either", "more.txt")
    expect(here.page.locator("#status.bad")).to_contain_text("more.txt")
    here.keeps(3)
    here.complains("status of 415")


def test_cancel_stops_the_server_too(visit: Callable[..., Visit], model: FakeModel) -> None:
    here = visit()
    model.gate.clear()
    here.choose(encoded(300, 200))
    expect(here.page.locator("#progress")).to_contain_text("Searching")
    assert model.began.acquire(timeout=60)
    here.page.get_by_role("button", name="Cancel").click()
    assert model.stopped.wait(60)
    expect(here.page.locator("#working")).to_be_hidden()
    model.gate.set()
    here.page.get_by_text("Search again").first.click()
    here.page.get_by_label("Masks", exact=True).select_option("100")
    here.page.get_by_role("button", name="Search again").click()
    expect(here.page.locator("#about")).to_contain_text("5 masks found")
    assert model.seen[-1][1].top == 100


def test_busy_server_is_asked_again(visit: Callable[..., Visit], model: FakeModel) -> None:
    """One picture is worked on and one waits; a third page has to wait outside."""
    model.gate.clear()
    first, second, third = visit(), visit(), visit()
    refused: list[Response] = []
    third.page.on("response", lambda answer: answer.status == 429 and refused.append(answer))
    first.choose(encoded(300, 200))
    assert model.began.acquire(timeout=60)
    with second.page.expect_request("**/v1/proposals?**"):
        second.choose(encoded(300, 200))
    with third.page.expect_response(lambda answer: answer.status == 429):
        third.choose(encoded(300, 200))
    expect(third.page.locator("#progress")).to_contain_text("busy")
    model.gate.set()
    for each in (first, second, third):
        expect(each.page.locator("#about")).to_contain_text("5 masks found")
    third.complains(*["status of 429"] * len(refused))


def _contrast(page: Page, selector: str) -> float:
    """Of an element's text with what is behind it (WCAG)."""
    script = """(element) => {
        const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
        const light = (colour) => {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
                .map((value) => value / 255)
                .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        let behind = element;
        const clear = /(, 0\\)|\\/ 0\\)|transparent)$/;
        while (clear.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
        const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(light);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }"""
    return page.locator(selector).first.evaluate(script)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes_can_be_read(visit: Callable[..., Visit], scheme: str) -> None:
    here = visit(color_scheme=scheme)
    page = here.page
    start = ("h1", "#promise", "#choose", "#model", "nav a")
    assert [name for name in start if _contrast(page, name) < 4.5] == []
    here.choose(encoded(300, 200))
    expect(page.locator("#about")).to_contain_text("5 masks found")
    page.get_by_role("button", name="Keep all shown").click()
    rest = ("#about", "#keys", "kbd", "h2", ".count", ".slider label", "summary", "#export-button", "#format", "#clear")
    assert [name for name in rest if _contrast(page, name) < 4.5] == []
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.get_by_role("button", name="Light or dark").click()
    after = page.evaluate(ground)
    assert before != after
    page.reload()
    assert page.evaluate(ground) == after


def test_controls_have_names(beach: Visit) -> None:
    beach.page.get_by_role("button", name="Keep all shown").click()
    for details in beach.page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    nameless = beach.page.locator("button, input, select, a, [role=listbox]").evaluate_all(
        """all => all.filter((one) => !(one.labels?.length && one.labels[0].textContent.trim())
            && !one.getAttribute("aria-label") && !one.textContent.trim()).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    roles = beach.page.locator("#stage").aria_snapshot()
    assert roles.count("- option") == 4


def test_masks_in_the_browser_are_those_of_the_package(visit: Callable[..., Visit]) -> None:
    """Decoding, NMS, what lies under a pixel and outlines, against pycocotools and `Proposals`."""
    here = visit()
    random = np.random.default_rng(5)
    height, width = 37, 53
    y, x = np.mgrid[:height, :width]
    masks = []
    for _ in range(60):
        a, b, c, d = random.uniform((0, 0, 3, 3), (width, height, 25, 18))
        blob = np.hypot((x - a) / c, (y - b) / d) < 1
        masks.append((blob & (random.random(blob.shape) < 0.9)) | ((x == int(a)) & (y == int(b))))
    masks += [x >= 0, (x + y) % 2 == 0]
    found = Proposals.from_masks(np.array(masks), random.random(len(masks)))
    script = """async (found) => {
        const { readMasks, Overlaps, choose, masksAt } = await import("/static/masks.js");
        const { outline } = await import("/static/outline.js");
        const { width, height } = found.image;
        const masks = readMasks(found);
        const overlaps = new Overlaps(masks);
        const all = { minScore: 0, minArea: 0, maxArea: Infinity, nms: 1, count: Infinity };
        const ids = (list) => list.map(({ id }) => id);
        const context = new OffscreenCanvas(1, 1).getContext("2d");
        return {
            runs: masks.map(({ runs }) => [...runs]),
            middles: masks.map(({ middle }) => middle),
            nms: Object.fromEntries([0, 0.1, 0.3, 0.5, 0.7, 0.95].map(
                (nms) => [nms, ids(choose(masks, overlaps, { ...all, nms }))])),
            mixed: ids(choose(masks, overlaps, { minScore: 0.2, minArea: 40, maxArea: 500, nms: 0.4, count: 9 })),
            at: [0, 7, 20, 36].flatMap((y) => [0, 13, 30, 52].map((x) => ids(masksAt(masks, x, y, height)))),
            filled: masks.map((mask) => {
                const path = outline(mask, height);
                const inside = [];
                for (let y = 0; y < height; y++) for (let x = 0; x < width; x++)
                    inside.push(context.isPointInPath(path, x + 0.5, y + 0.5, "evenodd"));
                return inside;
            }),
        };
    }"""
    seen = here.page.evaluate(script, _describe("a.png", found, 0))
    for mask, runs, middle, filled in zip(found.masks, seen["runs"], seen["middles"], seen["filled"], strict=True):
        flat = np.zeros(height * width, bool)
        for begin, end in zip(runs[::2], runs[1::2], strict=True):
            flat[begin:end] = True
        assert np.array_equal(flat.reshape(width, height).T, mask)
        assert mask[middle[1], middle[0]]
        assert np.array_equal(np.reshape(filled, (height, width)), mask)
    for iou, kept in seen["nms"].items():
        assert kept == found.nms_ranks(float(iou)), iou
    best = np.flatnonzero((found.scores >= 0.2) & (found.areas >= 40) & (found.areas <= 500))
    assert seen["mixed"] == best[found[best].nms_ranks(0.4)][:9].tolist()
    places = [(x, y) for y in (0, 7, 20, 36) for x in (0, 13, 30, 52)]
    for (column, row), there in zip(places, seen["at"], strict=True):
        inside = np.flatnonzero(found.masks[:, row, column])
        assert there == inside[np.argsort(found.areas[inside], kind="stable")].tolist()


def test_api_page_shows_the_whole_api(visit: Callable[..., Visit], address: str) -> None:
    here = visit("/docs")
    page = here.page
    expect(page.locator("article")).to_have_count(7)
    for path in ("/v1/proposals", "/v1/proposals/batch", "/v1/export", "/healthz", "/metrics"):
        expect(page.locator("h3 code", has_text=path).first).to_be_visible()
    expect(page.locator("article").first).to_contain_text(f"curl '{address}/v1/proposals?top=100' -F file=@photo.jpg")
    expect(page.locator("article").first).to_contain_text("integer, 1 … 1000, default 300")
    page.locator("article", has_text="/v1/export").locator("summary", has_text="application/json").click()
    expect(page.locator("article", has_text="/v1/export").first).to_contain_text("file_name")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

"""The page in a real Chromium: what a person does with mouse, finger and keyboard, and what comes of it."""

import base64
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_visit import Visit
from PIL import Image
from playwright.sync_api import Page
from pycocotools import mask as coco_mask
from web_fakes import encoded, known_masks

from browser_waits import expect
from sharpmask.formats import PHOTO_FORMATS
from sharpmask.proposals.result import Proposals
from sharpmask.web.api import _describe

SIZE = (200, 300)


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

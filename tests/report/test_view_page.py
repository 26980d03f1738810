"""The page in a real browser: what is drawn where, keys, pointer, order, and that it asks for nothing from outside."""

from pathlib import Path
from typing import Any

import pytest
from report_scenes import Scene

from browser_waits import PATIENCE, expect, settles
from sharpmask.report.write import write_view

MISSED = (224, 0, 32)


@pytest.fixture
def page(scene: Scene, browser: Any) -> Any:
    """The report of `scene`, open; `errors` and `requests` collect what the browser says."""
    write_view(**scene.arguments())
    context = browser.new_context(viewport={"width": 1000, "height": 800}, offline=True)
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.errors, page.requests = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto((scene.path / "report.html").as_uri())
    yield page
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("data:")] == [(scene.path / "report.html").as_uri()]
    context.close()


def names(page: Any) -> list[str]:
    return [text.split("\n")[0] for text in page.locator("#cards li").all_inner_texts()]


def open_photo(page: Any, place: int) -> None:
    """Click on a photo of the gallery."""
    page.locator("#cards a").nth(place).click()
    expect(page.locator("#photo")).to_be_visible()


def rank_is(page: Any, text: str) -> None:
    expect(page.locator("#rank-text")).to_have_text(text)


def about(page: Any, *parts: str) -> None:
    """The line about the mask that is shown or pointed at holds all of the parts."""
    for part in parts:
        expect(page.locator("#about")).to_contain_text(part)


def pixel(page: Any, x: int, y: int) -> tuple[int, ...]:
    """Colour and opacity of the drawing over one pixel of the photo."""
    script = "([x, y]) => [...document.getElementById('drawing').getContext('2d').getImageData(x, y, 1, 1).data]"
    return tuple(page.evaluate(script, [x, y]))


def drawn(page: Any, wanted: dict[tuple[int, int], str]) -> None:
    """The drawing at some pixels of the photo: "nothing", the "inside" of a mask, the "edge" of one or a "missed"
    object's edge."""

    def kind(x: int, y: int) -> str:
        *colour, opacity = pixel(page, x, y)
        if opacity == 255:
            return "missed" if tuple(colour) == MISSED else "edge"
        return "inside" if opacity > 80 else "faint" if opacity else "nothing"

    settles(page, lambda: {place: kind(*place) for place in wanted}, wanted)


def move_to(page: Any, x: float, y: float, *, click: bool = False) -> None:
    """Point at a pixel of the photo of 120 pixels' width."""
    box = page.locator("#drawing").bounding_box()
    scale = box["width"] / 120
    place = {"x": (x + 0.5) * scale, "y": (y + 0.5) * scale}
    page.locator("#drawing").click(position=place) if click else page.locator("#drawing").hover(position=place)


def test_gallery_order_filter_and_figures(page: Any) -> None:
    settles(page, lambda: names(page), ["a.png", "b.png", "c.png"])
    expect(page.locator("#summary")).to_contain_text("5 objects of ann.json: 2 missed")
    assert page.locator("#figures table").count() == 2 and page.locator("#figures svg path").count() >= 4
    page.select_option("#order", label="most missed objects first")
    settles(page, lambda: names(page), ["b.png", "c.png", "a.png"])
    page.check("#only-missed")
    settles(page, lambda: names(page), ["b.png", "c.png"])
    expect(page.locator("#cards li").first).to_contain_text("1 of 2 objects missed")
    page.fill("#find", "C.p")
    settles(page, lambda: names(page), ["c.png"])
    loaded = "[...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth > 0)"
    settles(page, lambda: page.evaluate(loaded), True)


def test_masks_by_rank_with_keys_and_slider(page: Any) -> None:
    open_photo(page, 0)
    page.uncheck("#objects-on")
    rank_is(page, "1 of 3")
    # The first mask only; its outline lies on its own pixels.
    drawn(page, {(30, 30): "inside", (90, 60): "nothing", (9, 30): "nothing", (10, 30): "edge"})
    drawn(page, {(49, 49): "edge", (50, 50): "nothing"})
    page.keyboard.press("ArrowRight")
    drawn(page, {(30, 30): "nothing", (90, 60): "inside"})
    about(page, "score 0.8", "IoU 0.90")
    page.keyboard.press("a")
    drawn(page, {(30, 30): "inside", (90, 60): "inside"})
    page.keyboard.press("End")
    rank_is(page, "3 of 3")
    page.keyboard.press("ArrowRight")
    rank_is(page, "3 of 3")
    page.locator("#rank").fill("1")
    rank_is(page, "1 of 3")
    settles(page, lambda: page.url.split("#")[1], "photo=0&rank=1")


def test_keys_pressed_right_after_a_click_are_not_lost(page: Any) -> None:
    """Within one event of the browser, before it tells of any new address."""
    script = """(keys) => {
        const texts = [];
        document.querySelector("#cards a").click();
        for (const key of keys) {
            document.dispatchEvent(new KeyboardEvent("keydown", { key }));
            texts.push(document.getElementById("name").textContent, document.getElementById("rank-text").textContent);
        }
        return texts;
    }"""
    assert page.evaluate(script, ["End", "n"]) == ["a.png", "3 of 3", "b.png", "1 of 2"]
    # The browser's own events come after that and change nothing.
    settles(page, lambda: page.url.split("#")[1], "photo=1&rank=1")
    rank_is(page, "1 of 2")
    page.go_back()
    expect(page.locator("#name")).to_have_text("a.png")
    rank_is(page, "3 of 3")
    page.go_back()
    expect(page.locator("#gallery")).to_be_visible()


def test_pointing_finds_the_smallest_mask_and_a_click_goes_there(page: Any) -> None:
    open_photo(page, 0)
    page.keyboard.press("a")
    page.keyboard.press("End")
    move_to(page, 45, 45)
    about(page, "rank 1 ·")
    move_to(page, 20, 20)  # inside rank 1 and rank 3
    about(page, "rank 3 ·")
    move_to(page, 90, 60, click=True)
    rank_is(page, "2 of 3")


def test_missed_objects_are_red_and_an_object_shows_its_best_match(page: Any) -> None:
    open_photo(page, 1)
    drawn(page, {(99, 40): "missed", (5, 20): "edge"})
    texts = page.locator("#objects li").all_inner_texts()
    assert texts[0].startswith("crate\n") and "IoU 1.00 at rank 1" in texts[0]
    assert texts[1].startswith("crate: missed") and "IoU 0.50 at rank 2" in texts[1]
    page.locator("#objects button").nth(1).click()
    about(page, "rank 2 ·")
    drawn(page, {(70, 40): "inside", (5, 20): "nothing"})  # the other object is out of the way
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#objects button[aria-pressed=true]")).to_have_count(0)


def test_keys_between_photos_and_back(page: Any) -> None:
    page.select_option("#order", label="most missed objects first")
    open_photo(page, 0)
    expect(page.locator("#name")).to_have_text("b.png")
    expect(page.locator("#previous")).to_be_disabled()
    page.keyboard.press("n")
    expect(page.locator("#name")).to_have_text("c.png")
    rank_is(page, "no proposals")
    page.keyboard.press("Escape")
    expect(page.locator("#gallery")).to_be_visible()
    settles(page, lambda: page.evaluate("document.activeElement.textContent")[:5], "c.png")


def test_small_screens_do_not_scroll_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    settles(page, lambda: page.evaluate("innerWidth"), 360)
    for view, address in (("#photo", "#photo=0&rank=1"), ("#gallery", "#")):
        page.evaluate("address => { location.hash = address; }", address)
        expect(page.locator(view)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_real_photos(shared: Path, browser: Any, tmp_path: Path) -> None:
    """Truth as proposals: every object is found with an IoU of 1 at its own rank."""
    import json

    truth = json.loads((shared / "data/coco-mini/instances_val.json").read_text())
    images = truth["images"][:3]
    kept = {image["id"] for image in images}
    objects = [a for a in truth["annotations"] if a["image_id"] in kept and not a["iscrowd"]]
    content = {**truth, "images": images, "annotations": objects}
    (tmp_path / "ann.json").write_text(json.dumps(content))
    results = [
        {"image_id": a["image_id"], "segmentation": a["segmentation"], "bbox": a["bbox"], "score": 1 - n / 1000}
        for n, a in enumerate(objects)
    ]
    (tmp_path / "p.json").write_text(json.dumps(results))
    folder = shared / "data/coco-mini/val"
    output = tmp_path / "r.html"
    report = write_view(
        tmp_path / "p.json", images=folder, output=output, annotations=tmp_path / "ann.json", resamples=5
    )
    assert report.missed == 0 and report.objects == len(objects)
    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(output.as_uri())
    expect(page.locator("#cards .found-text")).to_have_count(3)
    open_photo(page, 0)
    texts = page.locator("#objects li").all_inner_texts()
    assert texts and all("IoU 1.00" in text for text in texts)
    page.close()

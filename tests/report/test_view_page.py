"""The page in a real browser: what is drawn where, keys, pointer, order, and that it asks for nothing from outside."""

from pathlib import Path
from typing import Any

import pytest
from report_scenes import Scene

from sharpmask.report.write import write_view

MISSED = (224, 0, 32)


@pytest.fixture
def page(scene: Scene, browser: Any) -> Any:
    """The report of `scene`, open; `errors` and `requests` collect what the browser says."""
    write_view(**scene.arguments())
    context = browser.new_context(viewport={"width": 1000, "height": 800}, offline=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
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


def pixel(page: Any, x: int, y: int) -> tuple[int, ...]:
    """Colour and opacity of the drawing over one pixel of the photo."""
    script = "([x, y]) => [...document.getElementById('drawing').getContext('2d').getImageData(x, y, 1, 1).data]"
    return tuple(page.evaluate(script, [x, y]))


def move_to(page: Any, x: float, y: float, *, click: bool = False) -> None:
    """Point at a pixel of the photo of 120 pixels' width."""
    box = page.locator("#drawing").bounding_box()
    scale = box["width"] / 120
    place = {"x": (x + 0.5) * scale, "y": (y + 0.5) * scale}
    page.locator("#drawing").click(position=place) if click else page.locator("#drawing").hover(position=place)


def test_gallery_order_filter_and_figures(page: Any) -> None:
    assert names(page) == ["a.png", "b.png", "c.png"]
    assert "5 objects of ann.json: 2 missed" in page.inner_text("#summary")
    assert page.locator("#figures table").count() == 2 and page.locator("#figures svg path").count() >= 4
    page.select_option("#order", label="most missed objects first")
    assert names(page) == ["b.png", "c.png", "a.png"]
    page.check("#only-missed")
    assert names(page) == ["b.png", "c.png"]
    assert "1 of 2 objects missed" in page.inner_text("#cards li >> nth=0")
    page.fill("#find", "C.p")
    assert names(page) == ["c.png"]
    assert page.evaluate("[...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth > 0)")


def test_masks_by_rank_with_keys_and_slider(page: Any) -> None:
    page.click("#cards a >> nth=0")
    page.uncheck("#objects-on")
    assert page.inner_text("#rank-text") == "1 of 3"
    assert pixel(page, 30, 30)[3] > 80 and pixel(page, 90, 60)[3] == 0  # the first mask only
    assert pixel(page, 9, 30)[3] == 0 and pixel(page, 10, 30)[3] == 255  # its outline lies on its own pixels
    assert pixel(page, 49, 49)[3] == 255 and pixel(page, 50, 50)[3] == 0
    page.keyboard.press("ArrowRight")
    assert pixel(page, 30, 30)[3] == 0 and pixel(page, 90, 60)[3] > 80
    assert "score 0.8" in page.inner_text("#about") and "IoU 0.90" in page.inner_text("#about")
    page.keyboard.press("a")
    assert pixel(page, 30, 30)[3] > 80 and pixel(page, 90, 60)[3] > 80
    page.keyboard.press("End")
    assert page.inner_text("#rank-text") == "3 of 3"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#rank-text") == "3 of 3"
    page.locator("#rank").fill("1")
    assert page.inner_text("#rank-text") == "1 of 3" and page.url.endswith("#photo=0&rank=1")


def test_pointing_finds_the_smallest_mask_and_a_click_goes_there(page: Any) -> None:
    page.click("#cards a >> nth=0")
    page.keyboard.press("a")
    page.keyboard.press("End")
    move_to(page, 45, 45)
    assert page.inner_text("#about").startswith("rank 1 ·")
    move_to(page, 20, 20)  # inside rank 1 and rank 3
    assert page.inner_text("#about").startswith("rank 3 ·")
    move_to(page, 90, 60, click=True)
    assert page.inner_text("#rank-text") == "2 of 3"


def test_missed_objects_are_red_and_an_object_shows_its_best_match(page: Any) -> None:
    page.click("#cards a >> nth=1")
    assert pixel(page, 99, 40)[:3] == MISSED and pixel(page, 5, 20)[:3] != MISSED
    texts = page.locator("#objects li").all_inner_texts()
    assert texts[0].startswith("crate\n") and "IoU 1.00 at rank 1" in texts[0]
    assert texts[1].startswith("crate: missed") and "IoU 0.50 at rank 2" in texts[1]
    page.click("#objects button >> nth=1")
    assert page.inner_text("#about").startswith("rank 2 ·") and pixel(page, 70, 40)[3] > 80
    assert pixel(page, 5, 20)[3] == 0  # the other object is out of the way
    page.keyboard.press("ArrowLeft")
    assert page.locator("#objects button[aria-pressed=true]").count() == 0


def test_keys_between_photos_and_back(page: Any) -> None:
    page.select_option("#order", label="most missed objects first")
    page.click("#cards a >> nth=0")
    assert page.inner_text("#name") == "b.png" and page.is_disabled("#previous")
    page.keyboard.press("n")
    page.wait_for_function("document.getElementById('name').textContent === 'c.png'")
    assert page.inner_text("#rank-text") == "no proposals"
    page.keyboard.press("Escape")
    page.wait_for_selector("#gallery", state="visible")
    assert page.evaluate("document.activeElement.textContent").startswith("c.png")


def test_small_screens_do_not_scroll_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    for address in ("#", "#photo=0&rank=1"):
        page.evaluate("address => (location.hash = address)", address)
        page.wait_for_function("address => location.hash === address || !location.hash", arg=address)
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
    page.goto(output.as_uri())
    assert page.locator("#cards .found-text").count() == 3
    page.click("#cards a >> nth=0")
    assert all("IoU 1.00" in text for text in page.locator("#objects li").all_inner_texts())
    page.close()

"""Pictures that need help, files that are none, and a server that is busy: what the page makes of them."""

from collections.abc import Callable

import pytest
from page_visit import Visit
from PIL import Image
from playwright.sync_api import Response
from web_fakes import FakeModel, encoded

from browser_waits import expect


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

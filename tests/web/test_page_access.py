"""The page for everyone: on a phone, in the dark, read aloud, and its API written out."""

from collections.abc import Callable

import pytest
from page_visit import Visit
from playwright.sync_api import Page
from web_fakes import encoded

from browser_waits import expect

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


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

"""What the tests of the web server share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from web_fakes import Connect, FakeModel, encoded, running

from sharpmask.web.app import create_app
from sharpmask.web.limits import Limits

if TYPE_CHECKING:
    from page_visit import Visit
    from playwright.sync_api import Browser


@pytest.fixture
def model() -> Iterator[FakeModel]:
    fake = FakeModel()
    yield fake
    fake.stubborn = False
    fake.gate.set()


@pytest.fixture
def connect(model: FakeModel) -> Iterator[Connect]:
    """Starts a server within the process, with the given limits; gives a client of it."""
    with ExitStack() as stack:

        def start(**limits: float) -> TestClient:
            app = create_app(model, model="fake", limits=Limits(**limits))  # type: ignore[arg-type]
            return stack.enter_context(TestClient(app, base_url="http://localhost", raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(connect: Connect) -> TestClient:
    return connect()


@pytest.fixture
def address(model: FakeModel) -> Iterator[str]:
    with running(create_app(model, model="fake", limits=Limits(queue=1))) as address:
        yield address


@pytest.fixture
def visit(browser: "Browser", address: str) -> Iterator[Callable[..., "Visit"]]:
    """Opens the page; at the end every request must have stayed on this server and nothing may have been complained
    about."""
    from page_visit import visits  # needs playwright, which the other tests here do without

    with visits(browser, address) as open_page:
        yield open_page


@pytest.fixture
def beach(visit: Callable[..., "Visit"]) -> "Visit":
    """The page with the masks of a picture."""
    opened = visit()
    opened.choose(encoded(300, 200))
    opened.page.locator("#about", has_text="5 masks found").wait_for()
    return opened

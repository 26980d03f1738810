"""What the tests of the web server share."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient
from web_fakes import Connect, FakeModel

from sharpmask.web.app import create_app
from sharpmask.web.limits import Limits


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

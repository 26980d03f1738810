"""Waiting in a browser's tests: for what has to come, never for a time."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
PATIENCE = 60.0  # seconds; only a page that is wrong takes as long, also on a busy machine
expect.set_options(timeout=1000 * PATIENCE)

Value = TypeVar("Value")


def settles(page: Any, read: Callable[[], Value], wanted: Value) -> None:
    """Read again and again until what is wanted comes; fail with the last thing read if it does not.

    A click or a key is handled when Playwright returns; what a pointer's movement or a new address does comes with the
    browser's next frame or event.
    """
    deadline = time.monotonic() + PATIENCE
    while (value := read()) != wanted and time.monotonic() < deadline:
        page.wait_for_timeout(20)  # lets the page's own events in, too
    assert value == wanted

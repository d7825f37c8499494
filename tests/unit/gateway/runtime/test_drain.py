"""The end waits for requests by their number, no longer than it may, and says now and then how many are left."""

import logging

import pytest

from glm_gateway.runtime.drain import drained


async def test_it_ends_when_nothing_is_left() -> None:
    left = iter([2, 2, 1, 0])
    assert await drained(lambda: next(left, 0), timeout_s=60) == 0


async def test_what_is_left_at_the_deadline_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert await drained(lambda: 3, timeout_s=0.05, told_s=0.01) == 3
    assert "requests left: 3, after" in caplog.text
    assert "requests cut: 3, after 0.05 s" in caplog.text


async def test_no_time_is_no_wait() -> None:
    assert await drained(lambda: 1, timeout_s=0) == 1

"""News reach the one who waits, and a wait without any ends in time, with one timer for all of them."""

import asyncio
import time

import pytest

from glm_worker.server.flights.news import News


async def test_news_that_came_before_are_there_at_once() -> None:
    news = News()
    news.set()
    assert await news.wait(60)


async def test_news_wake_who_waits() -> None:
    news = News()
    waiting = asyncio.create_task(news.wait(60))
    await asyncio.sleep(0)
    news.set()
    assert await asyncio.wait_for(waiting, 10)
    news.close()


@pytest.mark.parametrize("within_s", [0.0, 0.02])
async def test_a_wait_without_news_ends_when_its_time_is_over(within_s: float) -> None:
    news, began = News(), time.monotonic()
    assert not await news.wait(within_s)
    assert time.monotonic() - began >= within_s * 0.9
    assert not await news.wait(within_s)


async def test_a_wait_has_its_own_time_though_the_timer_of_the_one_before_still_runs() -> None:
    news = News()
    first = asyncio.create_task(news.wait(0.02))
    await asyncio.sleep(0)
    news.set()
    assert await first
    news.clear()
    began = time.monotonic()
    assert not await news.wait(0.1)
    assert time.monotonic() - began >= 0.09


async def test_a_shorter_wait_does_not_wait_for_the_timer_of_a_longer_one() -> None:
    news = News()
    first = asyncio.create_task(news.wait(3600))
    await asyncio.sleep(0)
    news.set()
    assert await first
    news.clear()
    assert not await asyncio.wait_for(news.wait(0.01), 10)


async def test_a_wait_without_an_end_is_not_ended_by_the_timer_of_another_one() -> None:
    news = News()
    first = asyncio.create_task(news.wait(0.01))
    await asyncio.sleep(0)
    news.set()
    assert await first
    news.clear()
    endless = asyncio.create_task(news.wait())
    done, _ = await asyncio.wait({endless}, timeout=0.05)
    assert not done
    news.set()
    assert await endless


async def test_one_who_is_cancelled_leaves_room_for_the_next() -> None:
    news = News()
    first = asyncio.create_task(news.wait(60))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not await news.wait(0.01)

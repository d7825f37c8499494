"""Memory is given back once after a wave of large bodies, and not for small ones."""

import asyncio

import pytest

from glm_worker.server.edge import memory
from glm_worker.server.edge.memory import LARGE_BYTES, Memory


async def test_one_trim_follows_all_large_bodies_of_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TRIM_AFTER_S", 0.01)
    trimmed = asyncio.Event()
    trims: list[int] = []
    loop = asyncio.get_running_loop()

    def trim() -> None:
        trims.append(1)
        loop.call_soon_threadsafe(trimmed.set)

    kept = Memory(trim)
    for num_bytes in (LARGE_BYTES - 1, LARGE_BYTES, 16 * LARGE_BYTES):
        kept.read(num_bytes)
    await asyncio.wait_for(trimmed.wait(), 60)
    assert len(trims) == 1

    trimmed.clear()
    kept.read(LARGE_BYTES)
    await asyncio.wait_for(trimmed.wait(), 60)
    assert len(trims) == 2


async def test_small_bodies_trim_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TRIM_AFTER_S", 0.0)
    trims: list[int] = []
    kept = Memory(lambda: trims.append(1))
    kept.read(LARGE_BYTES - 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert trims == []

"""Memory is given back after large bodies, once for many, and not for small ones; the C library keeps little of it."""

import asyncio
import subprocess
import sys

import pytest

from glm_worker.server.edge import memory
from glm_worker.server.edge.memory import LARGE_BYTES, Memory

MIB = 2**20
# Blocks of 24 MiB, as large bodies are: after them the library keeps more at the end of each arena. Then many small
# blocks in a thread, of which nothing stays.
OF_A_THREAD = """
import ctypes, sys, threading
from glm_worker.server.edge.memory import keep_little, _trim_of_libc

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024

def work(begin, go_on):
    begin.wait()
    blocks = [b"x" * (20_000 + n) for n in range(1_500)]
    del blocks
    go_on.set()
    stay.wait()

if sys.argv[1] == "little":
    keep_little()
stay = threading.Event()
for _ in range(3):
    block = bytearray(24 * 2**20)
    del block
threads = [(threading.Event(), threading.Event()) for _ in range(3)]
for pair in threads:
    threading.Thread(target=work, args=pair).start()
before = resident()
for begin, go_on in threads:
    begin.set()
    go_on.wait()
_trim_of_libc()()
print(resident() - before)
stay.set()
"""


async def test_one_trim_follows_all_large_bodies_of_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TRIM_AFTER_S", 0.01)
    trimmed = asyncio.Event()
    trims: list[int] = []
    loop = asyncio.get_running_loop()

    def trim() -> None:
        trims.append(1)
        loop.call_soon_threadsafe(trimmed.set)

    kept = Memory(trim)
    for num_bytes in (LARGE_BYTES - 1, LARGE_BYTES):
        kept.freed(num_bytes)
    await asyncio.wait_for(trimmed.wait(), 60)
    assert len(trims) == 1

    trimmed.clear()
    kept.freed(LARGE_BYTES)
    await asyncio.wait_for(trimmed.wait(), 60)
    assert len(trims) == 2


async def test_a_body_that_ends_while_a_trim_is_due_gets_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TRIM_AFTER_S", 0.01)
    loop = asyncio.get_running_loop()
    trims: asyncio.Queue[float] = asyncio.Queue()
    kept = Memory(lambda: loop.call_soon_threadsafe(trims.put_nowait, loop.time()))
    for _ in range(5):
        kept.freed(LARGE_BYTES)
    first = await asyncio.wait_for(trims.get(), 60)
    assert await asyncio.wait_for(trims.get(), 60) > first
    kept.freed(LARGE_BYTES)
    await asyncio.wait_for(trims.get(), 60)
    assert trims.empty()


async def test_small_bodies_trim_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TRIM_AFTER_S", 0.0)
    trims: list[int] = []
    kept = Memory(lambda: trims.append(1))
    kept.freed(LARGE_BYTES - 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert trims == []


def test_what_threads_freed_goes_back_to_the_system() -> None:
    def left(how: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", OF_A_THREAD, how], text=True))

    assert left("much") > 30 * MIB, "the library keeps nothing by itself: then nothing need be told to it"
    assert left("little") < 8 * MIB

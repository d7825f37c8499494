"""The store of limits dies and comes back while requests come: they go on or are told to wait, and nothing is lost."""

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from glm_gateway.limits.limit import Budget, Limits, Unit
from glm_gateway.limits.reserve import Granted, Refusal, Scope
from glm_gateway.limits.store import StoreGone
from glm_gateway.limits.store_config import OnFailure, StoreConfig
from glm_gateway.limits.tokens import Usage
from glm_gateway.limits.valkey.shared import SharedStore
from glm_gateway.limits.valkey.store import ValkeyStore
from integration.certificates import a_certificate
from integration.free_ports import free_port
from integration.valkey_world import Valkey

DEADLINE_S = 20.0
USAGE = Usage(prompt=60, answer=40)
SCOPE = Scope("key a", Limits(budget=Budget(1000, Unit.TOKENS), concurrency=50))


@pytest_asyncio.fixture
async def valkey() -> AsyncIterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        # What is written is on disk before it is answered: the server comes back with what it had.
        server = Valkey(Path(folder), ("--port", "0", "--appendonly", "yes", "--appendfsync", "always"))
        server.begin()
        await server.until_ready()
        yield server
        server.end()


@contextlib.asynccontextmanager
async def a_store(valkey: Valkey, on_failure: OnFailure, **fields: Any) -> AsyncIterator[SharedStore]:
    shared = ValkeyStore(valkey.client(), prefix="p", timeout_s=0.5)
    store = SharedStore(shared, on_failure, where="redis://v", probe_s=0.02, **fields)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


async def reserved(store: SharedStore) -> Granted:
    found = await store.reserve([SCOPE], USAGE, time.time())
    assert isinstance(found, Granted), found
    return found


async def spent(store: SharedStore) -> int:
    return (await store.counters([SCOPE]))["key a"].spent


async def back(valkey: Valkey, store: SharedStore) -> None:
    valkey.begin()
    await valkey.until_ready()
    await until(lambda: store.is_up)


async def test_open_goes_on_from_what_was_known_and_hands_over_what_it_cost(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with a_store(valkey, OnFailure.OPEN) as store:
        before = [await reserved(store) for _ in range(4)]
        valkey.end()
        meanwhile = [await reserved(store) for _ in range(6)]
        assert not store.is_up
        assert isinstance(await store.reserve([SCOPE], USAGE, time.time()), Refusal)  # 400 were known to be spent
        for held in (*before, *meanwhile[:3]):
            await store.settle(held.reservation, Usage(prompt=10), time.time())
        await back(valkey, store)
        assert await spent(store) == 70
        for held in meanwhile[3:]:  # ends only now, and was never in the store
            await store.settle(held.reservation, Usage(prompt=10), time.time())
        async with asyncio.timeout(DEADLINE_S):
            while await spent(store) != 100:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)
        assert (store.num_failures, store.num_counted_here) == (1, 7)
    assert len([record for record in caplog.records if "is gone" in record.message]) == 1
    assert "answers again" in caplog.text


async def test_closed_lets_nobody_in_and_settles_later_what_it_had_let_in(valkey: Valkey) -> None:
    async with a_store(valkey, OnFailure.CLOSED) as store:
        held = await reserved(store)
        valkey.end()
        for _ in range(3):
            with pytest.raises(StoreGone):
                await store.reserve([SCOPE], USAGE, time.time())
        await store.settle(held.reservation, Usage(prompt=7), time.time())
        await back(valkey, store)
        await reserved(store)
        known = (await store.counters([SCOPE]))["key a"]
        assert (known.spent, known.num_running) == (107, 1)


async def test_a_store_that_was_never_there_is_used_as_soon_as_it_is(valkey: Valkey) -> None:
    valkey.end()
    async with a_store(valkey, OnFailure.OPEN) as store:
        assert not store.is_up
        await store.settle((await reserved(store)).reservation, Usage(prompt=5), time.time())
        await back(valkey, store)
        assert await spent(store) == 5


async def test_a_store_that_hangs_holds_up_one_request_and_no_further_one(valkey: Valkey) -> None:
    async with a_store(valkey, OnFailure.OPEN) as store:
        await reserved(store)
        admin = valkey.client()
        await admin.client_pause(1500)
        began = time.monotonic()
        for _ in range(50):
            await store.reserve([SCOPE], USAGE, time.time())
        assert time.monotonic() - began < 1.2  # of which one call waited for 0.5 s
        await until(lambda: store.is_up)
        await admin.aclose()


async def test_the_end_hands_over_what_is_owed(valkey: Valkey) -> None:
    valkey.end()
    async with a_store(valkey, OnFailure.OPEN) as store:
        await store.settle((await reserved(store)).reservation, Usage(prompt=5), time.time())
        valkey.begin()
    async with a_store(valkey, OnFailure.OPEN) as again:
        assert await spent(again) == 5


async def test_a_request_that_runs_keeps_its_place_for_as_long_as_it_runs(valkey: Valkey) -> None:
    shared = ValkeyStore(valkey.client(), prefix="p", timeout_s=0.5, lease_s=0.3)
    store = SharedStore(shared, OnFailure.OPEN, where="redis://v", renew_s=0.05)
    await store.start()
    await reserved(store)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert (await store.counters([SCOPE]))["key a"].num_running == 1
        await asyncio.sleep(0.05)
    await store.close()


@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_it_is_reached_by_url_with_the_password_of_a_file(tmp_path: Path, password: str) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        server = Valkey(Path(folder), ("--port", str(port), "--requirepass", "right"))
        server.begin()
        try:
            await reach(port, tmp_path / "password", password)
        finally:
            server.end()


async def reach(port: int, file: Path, password: str) -> None:
    file.write_text(f"{password}\n")  # noqa: ASYNC240 - a test's own
    config = StoreConfig(url=f"redis://127.0.0.1:{port}/3", password_file=file, on_failure=OnFailure.CLOSED)
    store = await SharedStore.opened(config)
    if password == "wrong":
        with pytest.raises(StoreGone) as caught:
            await reserved(store)
        assert "wrong" not in str(caught.value)
        file.write_text("right")  # noqa: ASYNC240 - it is read for each connection
    await until(lambda: store.is_up)
    await reserved(store)
    await store.close()


@pytest.mark.parametrize("knows_it", [True, False])
async def test_an_encrypted_store_is_believed_by_the_authority_of_a_file_alone(tmp_path: Path, knows_it: bool) -> None:
    port, own, other = free_port(), a_certificate(tmp_path), a_certificate(tmp_path, "elsewhere")
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        options = ("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no")
        files = (
            "--tls-cert-file",
            str(own.chain),
            "--tls-key-file",
            str(own.key),
            "--tls-ca-cert-file",
            str(own.chain),
        )
        server = Valkey(Path(folder), (*options, *files))
        server.begin()
        try:
            await server.until_ready()
            ca_file = own.chain if knows_it else other.chain
            config = StoreConfig(url=f"rediss://localhost:{port}", ca_file=ca_file, on_failure=OnFailure.CLOSED)
            store = await SharedStore.opened(config.model_copy(update={"timeout_seconds": 5.0}))
            if knows_it:
                await reserved(store)
            else:
                with pytest.raises(StoreGone, match=r"(?i)certificate"):
                    await reserved(store)
            await store.close()
        finally:
            server.end()


def test_an_authority_without_encryption_is_refused() -> None:
    with pytest.raises(ValidationError, match="rediss://"):
        StoreConfig.model_validate({"url": "redis://v", "caFile": "/ca.crt"})

"""The HTTP port with certificates: who gets in, and what becomes of connections when the files change."""

import asyncio
import logging
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from glm_worker.errors import ConfigError
from glm_worker.server.edge.tls import TlsFolder
from integration.authority import Authority, Pair, mount, private_pem
from integration.no_tls import NO_TLS
from integration.pods import eventually, running_group
from integration.server_world import DEADLINE_S, MODEL, ServerWorld, a_server

BODY = {"model": MODEL, "prompt": "1", "stream": True}


@asynccontextmanager
async def a_tls_server(tmp_path: Path, authority: Authority) -> AsyncIterator[tuple[ServerWorld, Path]]:
    folder = tmp_path / "tls"
    mount(folder, authority.certificate, authority.sign("server"))
    async with a_server(tmp_path, tls_folder=str(folder)) as world:
        yield world, folder


def a_client(world: ServerWorld, context: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"https://127.0.0.1:{world.port}", verify=context, timeout=DEADLINE_S)


async def is_let_in(world: ServerWorld, context: ssl.SSLContext) -> bool:
    async with a_client(world, context) as client:
        try:
            return (await client.get("/v1/models")).status_code == 200
        except httpx.TransportError:
            return False


async def serial_of(world: ServerWorld, context: ssl.SSLContext) -> str:
    """Return the serial number of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=context, server_hostname="127.0.0.1")
    found = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    assert isinstance(found, str)
    return found


async def until_serial_changes(world: ServerWorld, context: ssl.SSLContext, before: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await serial_of(world, context) == before:
            pass


async def test_who_has_a_certificate_of_the_authority_is_answered_and_nobody_else(tmp_path: Path) -> None:
    authority, other = Authority(), Authority("other")
    async with a_tls_server(tmp_path, authority) as (world, _):
        assert await is_let_in(world, authority.client(tmp_path))
        assert not await is_let_in(world, ssl.create_default_context(cadata=authority.certificate.decode()))
        assert not await is_let_in(world, other.client(tmp_path, trusted=authority))
        assert not await is_let_in(world, authority.client(tmp_path, purpose="server")), "a worker is no client"
        with pytest.raises(httpx.TransportError):
            await world.http.get("/v1/models")
        assert await is_let_in(world, authority.client(tmp_path)), "and it serves on"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_stream_is_whole_in_each_version(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority()
    async with a_tls_server(tmp_path, authority) as (world, _):
        engine = await world.serve()
        context = authority.client(tmp_path)
        context.minimum_version = context.maximum_version = version
        async with a_client(world, context) as client, client.stream("POST", "/v1/completions", json=BODY) as response:
            await engine.say(await engine.next_request(), " 2 3", end="<|user|>")
            assert (await response.aread()).endswith(b"data: [DONE]\n\n")


async def test_an_older_version_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    async with a_tls_server(tmp_path, authority) as (world, _):
        context = authority.client(tmp_path)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        assert not await is_let_in(world, context)


async def test_a_client_that_leaves_ends_its_request(tmp_path: Path) -> None:
    authority = Authority()
    async with a_tls_server(tmp_path, authority) as (world, _):
        engine = await world.serve()
        client = a_client(world, authority.client(tmp_path))
        async with client, client.stream("POST", "/v1/completions", json=BODY):
            request = await engine.next_request()
        assert await engine.next_cancelled() == request.request_id


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_new_files_hold_for_new_connections_and_open_ones_go_on(
    tmp_path: Path, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old, new = Authority("old"), Authority("new")
    async with a_tls_server(tmp_path, old) as (world, folder):
        engine = await world.serve()
        of_old, of_new = old.client(tmp_path), new.client(tmp_path)
        of_old.maximum_version = version
        of_old.load_verify_locations(cadata=new.certificate.decode())
        of_new.load_verify_locations(cadata=old.certificate.decode())
        before = await serial_of(world, of_old)
        kept = await _session(world, of_old)
        client = a_client(world, of_old)
        async with client, client.stream("POST", "/v1/completions", json=BODY) as response:
            request = await engine.next_request()
            await engine.say(request, " 2")
            mount(folder, old.certificate + new.certificate, new.sign("server"))  # both, while clients move
            await until_serial_changes(world, of_old, before)
            assert await is_let_in(world, of_old)
            assert await is_let_in(world, of_new)
            between = await serial_of(world, of_new)
            mount(folder, new.certificate, new.sign("server"))
            await until_serial_changes(world, of_new, between)
            assert not await is_let_in(world, of_old), "its authority is gone"
            assert kept is not None
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await _session(world, of_old, kept)
            assert await is_let_in(world, of_new)
            await engine.say(request, " 3", end="<|user|>")
            assert (await response.aread()).endswith(b"data: [DONE]\n\n")
        assert sum("are new" in record.getMessage() for record in caplog.records) == 2


async def _session(
    world: ServerWorld, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSession | None:
    """Ask once, with the session of an earlier connection, and return the one of this. Raises OSError."""

    def ask() -> ssl.SSLSession | None:
        with (
            socket.create_connection(("127.0.0.1", world.port), DEADLINE_S) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as wrapped,
        ):
            wrapped.sendall(b"GET /v1/models HTTP/1.1\r\nhost: w\r\n\r\n")
            if not wrapped.recv(4096).startswith(b"HTTP/1.1 200"):
                raise ConnectionError("not answered")
            return wrapped.session

    return await asyncio.to_thread(ask)


async def test_files_that_cannot_be_read_change_nothing_and_the_log_says_why_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority()
    async with a_tls_server(tmp_path, authority) as (world, folder):
        client = authority.client(tmp_path)
        before = await serial_of(world, client)
        mount(folder, authority.certificate, Pair(authority.sign("server").certificate, authority.sign("server").key))
        async with asyncio.timeout(DEADLINE_S):
            while not _faults(caplog):
                assert await serial_of(world, client) == before
        assert await serial_of(world, client) == before
        mount(folder, authority.certificate, authority.sign("server"))
        await until_serial_changes(world, client, before)
        assert len(_faults(caplog)) == 1
        assert "key values mismatch" in _faults(caplog)[0]
        assert "PRIVATE" not in caplog.text


def _faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "those of before count" in record.getMessage()]


def test_a_look_costs_little(tmp_path: Path) -> None:
    authority = Authority()
    mount(tmp_path / "tls", authority.certificate, authority.sign("server"))
    found = TlsFolder(tmp_path / "tls")
    current, began_s = found.context.current, time.process_time()
    for _ in range(100):
        found.look()
    assert (time.process_time() - began_s) / 100 < 0.01  # in the server's loop, each second
    assert found.context.current is current


def test_what_is_no_folder_of_certificates_is_refused_with_the_setting_and_the_reason(tmp_path: Path) -> None:
    authority, folder = Authority(), tmp_path / "tls"
    with pytest.raises(ConfigError, match=rf"GLM_TLS_FOLDER={folder}: {folder}/ca.crt: No such file"):
        TlsFolder(folder)
    mount(folder, b"", authority.sign("server"))
    with pytest.raises(ConfigError, match="are no certificates with their key"):
        TlsFolder(folder)
    shutil.rmtree(folder)
    locked = private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret")
    mount(folder, authority.certificate, Pair(authority.sign("server").certificate, locked))
    with pytest.raises(ConfigError, match="locked by a password"):
        TlsFolder(folder)


def test_a_pod_whose_certificates_come_late_says_what_is_missing_and_serves_when_they_are_there(tmp_path: Path) -> None:
    authority, folder = Authority(), tmp_path / "tls"
    with running_group(tmp_path, rank_target="integration.fake_ranks:rest", tls_folder=folder) as group:

        def faults() -> list[str]:
            generations = group.leader.group().get("generations", [])
            return [each["cause"]["message"] for each in generations if each["cause"]]

        eventually(lambda: any("ca.crt: No such file" in fault for fault in faults()))
        assert group.leader.get("/livez").status_code == 200, "the management port is plain"
        mount(folder, authority.certificate, authority.sign("server"))
        context = authority.client(tmp_path)
        context.check_hostname = False  # the pod has another loopback address

        def answers() -> bool:
            try:
                url = f"https://{group.leader.host}:8000/v1/models"
                return httpx.get(url, verify=context, timeout=10.0).status_code == 200
            except httpx.TransportError:
                return False

        eventually(answers)
        assert group.leader.get("/metrics").status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{group.leader.host}:8000/v1/models", verify=NO_TLS, timeout=10.0)

"""`glm-gateway` as a process that speaks TLS: its certificate changes while connections that are open go on."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import ssl
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fuzz.wire import Reply, read_reply
from glm_gateway.tls.shown import BadCertificate, ShownCertificate
from integration.certificates import Certificate, a_certificate
from integration.free_ports import free_port
from integration.server_world import DEADLINE_S

GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


def put(certificate: Certificate, folder: Path) -> None:
    """Lay it where a mounted Secret has it: both at once, by one link."""
    new = folder / f"..{len(list(folder.iterdir()))}"
    new.mkdir(parents=True)
    shutil.copy(certificate.chain, new / "tls.crt")
    shutil.copy(certificate.key, new / "tls.key")
    link = folder / "..data_tmp"
    link.symlink_to(new.name)
    link.rename(folder / "..data")


def made(tmp_path: Path, name: str, *, has_rsa: bool = False) -> Certificate:
    folder = tmp_path / name
    folder.mkdir()
    return a_certificate(folder, has_rsa=has_rsa)


@dataclass
class World:
    port: int
    folder: Path
    log: Path

    @contextlib.asynccontextmanager
    async def connected(
        self, context: ssl.SSLContext
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def shown(self) -> int:
        """Return the number of the certificate that a new connection is shown."""
        async with self.connected(anybody()) as (_, writer):
            data = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(data).serial_number


def anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def number(certificate: Certificate) -> int:
    return x509.load_pem_x509_certificate(certificate.chain.read_bytes()).serial_number


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    port = free_port()
    folder = tmp_path / "tls"
    folder.mkdir()
    (tmp_path / "groups.json").write_text('{"groups": []}')
    put(made(tmp_path, "first"), folder)
    config = {
        "host": "127.0.0.1",
        "port": port,
        "managementPort": free_port(),
        "tls": {"folder": str(folder)},
        "auth": {"mode": "None"},
        "models": [{"name": "m", "groups": {"file": str(tmp_path / "groups.json")}}],
    }
    (tmp_path / "gateway.json").write_text(json.dumps(config))
    environment = {**os.environ, "GLM_GATEWAY_TOKEN": "t" * 16, "GLM_GATEWAY_SECRET": "0f" * 16}
    command = [sys.executable, "-m", "glm_gateway.main", "--config", str(tmp_path / "gateway.json")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)  # noqa: ASYNC220
    world = World(port, folder, tmp_path / "log")
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                assert process.poll() is None, world.log.read_text()
                with contextlib.suppress(OSError):
                    await world.shown()
                    break
                await asyncio.sleep(0.05)
        yield world
    finally:
        process.kill()
        process.wait()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Reply:
    writer.write(GET)
    return await read_reply(reader)


async def test_a_new_certificate_is_shown_within_seconds_and_open_connections_go_on(
    world: World, tmp_path: Path
) -> None:
    first = tmp_path / "first" / "localhost.crt"
    trusting = ssl.create_default_context(cafile=str(first))
    async with world.connected(trusting) as (reader, writer):
        assert (await ask(reader, writer)).status == 200
        second = made(tmp_path, "second")
        assert await world.shown() != number(second)
        put(second, world.folder)
        async with asyncio.timeout(5):
            while await world.shown() != number(second):  # noqa: ASYNC110 - nothing tells a test
                await asyncio.sleep(0.1)
        assert (await ask(reader, writer)).status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        async with world.connected(trusting):
            pass


def test_what_is_older_than_tls_1_2_is_refused(tmp_path: Path) -> None:
    first = made(tmp_path, "first")
    shutil.copy(first.chain, tmp_path / "tls.crt")
    shutil.copy(first.key, tmp_path / "tls.key")
    old = anybody()
    old.set_ciphers("ALL:@SECLEVEL=0")  # so that the client would do it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = old.wrap_bio(to_client, to_server)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        ShownCertificate(tmp_path).context.wrap_bio(to_server, to_client, server_side=True).do_handshake()


async def test_tls_1_2_and_1_3_are_spoken_and_plain_http_is_no_request(world: World) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        new = anybody()
        new.minimum_version = new.maximum_version = version
        new.set_alpn_protocols(["h2", "http/1.1"])
        async with world.connected(new) as (reader, writer):
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            assert (await ask(reader, writer)).status == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(GET)
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(ConnectionError):
            assert b"HTTP/1.1 200" not in await reader.read()
    writer.close()
    assert "Traceback" not in world.log.read_text()


async def test_who_says_no_more_after_its_request_is_gone(world: World) -> None:
    """TLS has no halves: a client that ends its own has ended the connection."""
    async with world.connected(anybody()) as (reader, writer):
        writer.write(GET + GET[:10])
        assert (await read_reply(reader)).status == 200
    assert await world.shown()
    assert "has no effect" not in world.log.read_text()


def test_a_half_written_pair_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = made(tmp_path, "first"), made(tmp_path, "second")
    folder = tmp_path / "tls"
    folder.mkdir()
    shutil.copy(first.chain, folder / "tls.crt")
    shutil.copy(first.key, folder / "tls.key")
    shown = ShownCertificate(folder)
    shutil.copy(second.chain, folder / "tls.crt")
    for _ in range(3):
        assert not shown.look()
    assert sum("the last one is shown on" in record.message for record in caplog.records) == 1
    handshake(shown, first)
    shutil.copy(second.key, folder / "tls.key")
    assert shown.look()
    assert not shown.look()
    handshake(shown, second)


def test_a_key_of_another_kind_takes_the_place_of_the_old_one_for_every_client(tmp_path: Path) -> None:
    first, second = made(tmp_path, "first", has_rsa=True), made(tmp_path, "second")
    folder = tmp_path / "tls"
    folder.mkdir()
    put(first, folder)
    shown = ShownCertificate(folder)
    for names_server in (True, False):
        handshake(shown, first, names_server=names_server)
    put(second, folder)
    assert shown.look()
    for names_server in (True, False):
        handshake(shown, second, names_server=names_server)
        with pytest.raises(ssl.SSLError):
            handshake(shown, first, names_server=names_server)
    only_rsa = anybody()
    only_rsa.maximum_version = ssl.TLSVersion.TLSv1_2
    only_rsa.set_ciphers("aRSA")
    with pytest.raises(ssl.SSLError):
        meet(shown, only_rsa.wrap_bio, server_hostname=None)


def handshake(shown: ShownCertificate, certificate: Certificate, *, names_server: bool = True) -> None:
    """Meet the server as a client that trusts one certificate, in memory."""
    trusting = ssl.create_default_context(cafile=str(certificate.chain))
    trusting.check_hostname = names_server
    meet(shown, trusting.wrap_bio, server_hostname="localhost" if names_server else None)


def meet(shown: ShownCertificate, wrap: Any, **fields: Any) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = wrap(to_client, to_server, **fields)
    server = shown.context.wrap_bio(to_server, to_client, server_side=True)
    left = [client, server]
    for _ in range(10):
        for each in list(left):
            try:
                each.do_handshake()
                left.remove(each)
            except ssl.SSLWantReadError:
                pass
    assert not left


@pytest.mark.parametrize(
    ("crt", "key", "said"),
    [
        (b"nonsense", None, "no certificate in PEM form"),
        (b"", None, "no certificate in PEM form"),
        (None, b"nonsense", "no pair"),
        (None, b"", "no pair"),
    ],
)
def test_what_is_no_certificate_is_told_at_the_start(
    tmp_path: Path, crt: bytes | None, key: bytes | None, said: str
) -> None:
    first = made(tmp_path, "first")
    (tmp_path / "tls.crt").write_bytes(first.chain.read_bytes() if crt is None else crt)
    (tmp_path / "tls.key").write_bytes(first.key.read_bytes() if key is None else key)
    with pytest.raises(BadCertificate, match=said):
        ShownCertificate(tmp_path)


def test_a_key_that_is_encrypted_is_told_and_nobody_is_asked_at_a_terminal(tmp_path: Path) -> None:
    first = made(tmp_path, "first")
    key = serialization.load_pem_private_key(first.key.read_bytes(), None)
    (tmp_path / "tls.crt").write_bytes(first.chain.read_bytes())
    (tmp_path / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    with pytest.raises(BadCertificate, match="no pair"):
        ShownCertificate(tmp_path)


def test_no_key_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    first = made(tmp_path, "first")
    (tmp_path / "tls.crt").write_bytes(first.chain.read_bytes())
    (tmp_path / "tls.key").write_bytes(first.key.read_bytes())
    shown = ShownCertificate(tmp_path)
    (tmp_path / "tls.key").write_bytes(b"canary")
    shown.look()
    assert "is good until" in caplog.text
    assert "canary" not in caplog.text
    assert first.key.read_text().splitlines()[1] not in caplog.text

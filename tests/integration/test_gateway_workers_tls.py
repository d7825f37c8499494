"""A gateway and workers that know each other by certificates, real on both sides; groups from before beside them."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from glm_gateway.groups.slices import server_name_of
from glm_gateway.proxy.connection import UpstreamLost
from glm_gateway.proxy.pool import Pool
from glm_gateway.tls.to_workers import WorkersCertificate
from glm_operator import names
from glm_operator.reconcile.certificates import issue
from integration.authority import Authority, Pair, mount
from integration.gateway_process import TOKEN, GatewayProcess, a_gateway_process, model_of, write_groups
from integration.scripted_groups import FRAMES_HEAD, ScriptedGroup, closed, opened, said, serving
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server

BODY = {"model": MODEL, "prompt": "1", "stream": True}


@dataclass
class World:
    """ours, theirs: folders of certificates, of the gateway and of its worker."""

    gateway: GatewayProcess
    server: ServerWorld
    engine: ScriptedEngine
    ours: Path
    theirs: Path

    async def is_served(self) -> bool:
        """Ask; tell whether the worker took it."""
        asking = asyncio.create_task(self.gateway.http.post(f"{self.gateway.url}/v1/completions", json=BODY))
        taking = asyncio.create_task(self.engine.submitted.get())
        await asyncio.wait({asking, taking}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            taking.cancel()
            assert asking.result().status_code == 503
            return False
        await self.engine.say(taking.result(), " 2", end="<|user|>")
        return "data: [DONE]" in (await asking).text


@contextlib.asynccontextmanager
async def a_world(tmp_path: Path, authority: Authority, **config: object) -> AsyncIterator[World]:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    mount(ours, authority.certificate, authority.sign("client"))
    mount(theirs, authority.certificate, authority.sign("server"))
    config = {"workers": {"tlsFolder": str(ours)}, "models": [model_of(MODEL, tmp_path / "groups.json")], **config}
    async with a_server(tmp_path, gateway_token=TOKEN, group="chat-g0", tls_folder=str(theirs)) as server:
        engine = await server.serve()
        write_groups(tmp_path / "groups.json", {"chat-g0": server.port}, tls=True)
        async with a_gateway_process(tmp_path, **config) as gateway:
            yield World(gateway, server, engine, ours, theirs)


async def test_they_speak_by_certificates_and_go_on_when_all_of_them_are_new(tmp_path: Path) -> None:
    before, after = Authority("before"), Authority("after")
    async with a_world(tmp_path, before) as world:
        await world.gateway.until_state(lambda told: bool(told["models"][MODEL]["groups"]))
        assert await world.is_served()
        both = before.certificate + after.certificate
        mount(world.theirs, both, after.sign("server"))
        mount(world.ours, both, after.sign("client"))
        await world.gateway.until_log("are new, and used for workers")
        await until_shown(world, "after")
        await drop_connections(world)
        assert await world.is_served()


async def test_a_group_of_a_template_from_before_is_asked_as_before(tmp_path: Path) -> None:
    script = [FRAMES_HEAD, opened(), said("one", 1), closed()]
    plain = ScriptedGroup("chat-g1", [script])
    async with a_world(tmp_path, Authority()) as world, serving(plain):
        groups = [
            {"name": "chat-g0", "host": "127.0.0.1", "port": world.server.port, "tls": True, "ready": False},
            {"name": "chat-g1", "host": "127.0.0.1", "port": plain.port},
        ]
        (tmp_path / "groups.new").write_text(json.dumps({"groups": groups}))
        (tmp_path / "groups.new").rename(tmp_path / "groups.json")
        await world.gateway.until_state(lambda told: "chat-g1" in told["models"][MODEL]["groups"])
        answer = await world.gateway.http.post(f"{world.gateway.url}/v1/completions", json=BODY)
        assert answer.text.startswith("data: one")


async def test_groups_of_both_templates_are_served_at_once(tmp_path: Path) -> None:
    plain = ScriptedGroup("chat-g1", [[FRAMES_HEAD, opened(), said("one", 1), closed()] for _ in range(40)])
    async with a_world(tmp_path, Authority()) as world, serving(plain):
        groups = [
            {"name": "chat-g0", "host": "127.0.0.1", "port": world.server.port, "tls": True},
            {"name": "chat-g1", "host": "127.0.0.1", "port": plain.port},
        ]
        (tmp_path / "groups.new").write_text(json.dumps({"groups": groups}))
        (tmp_path / "groups.new").rename(tmp_path / "groups.json")
        await world.gateway.until_state(lambda told: len(told["models"][MODEL]["groups"]) == 2)
        answers = set()
        for number in range(40):
            body = {**BODY, "prompt": str(number) * 40}
            asking = asyncio.create_task(world.gateway.http.post(f"{world.gateway.url}/v1/completions", json=body))
            taking = asyncio.create_task(world.engine.submitted.get())
            await asyncio.wait({asking, taking}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                await world.engine.say(taking.result(), " 2", end="<|user|>")
            taking.cancel()
            answer = await asking
            assert answer.status_code == 200
            answers.add("plain" if "data: one" in answer.text else "tls")
            if answers == {"plain", "tls"}:
                return
        raise AssertionError(f"of 40 requests all went to the group that speaks {answers}")


async def test_a_group_that_speaks_tls_gets_nothing_where_no_folder_is_said(tmp_path: Path) -> None:
    async with a_world(tmp_path, Authority(), workers={}, hold={"timeoutSeconds": 0.1}) as world:
        await world.gateway.until_log("group chat-g0 speaks TLS, and the file has no workers.tlsFolder")
        assert not await world.is_served()


async def test_a_worker_that_nobody_vouches_for_gets_no_request(tmp_path: Path) -> None:
    async with a_world(tmp_path, Authority(), hold={"timeoutSeconds": 0.1}) as world:
        assert await world.is_served()
        stranger = Authority("stranger")
        mount(world.theirs, Authority("other").certificate, stranger.sign("server"))
        await until_shown(world, "stranger")
        await drop_connections(world)
        assert not await world.is_served()


async def drop_connections(world: World) -> None:
    """Let the gateway connect anew: a group that is gone and comes back has no connections from before."""
    port = world.server.port
    write_groups(world.gateway.folder / "groups.json", {})
    await world.gateway.until_state(lambda told: not told["models"][MODEL]["groups"])
    write_groups(world.gateway.folder / "groups.json", {"chat-g0": port}, tls=True)
    await world.gateway.until_state(lambda told: bool(told["models"][MODEL]["groups"]))


async def until_shown(world: World, signer: str) -> None:
    """Wait until the worker shows a certificate that this one has signed to new connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(DEADLINE_S):
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", world.server.port, ssl=context)
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            (name,) = x509.load_der_x509_certificate(shown).issuer
            if name.value == signer:
                return
            await asyncio.sleep(0.05)


def test_half_of_the_certificates_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, folder = Authority(), tmp_path / "ours"
    mount(folder, authority.certificate, authority.sign("client"))
    found = WorkersCertificate(folder)
    first = found.context.current
    assert not found.look()
    good, other = authority.sign("client"), authority.sign("client")
    mount(folder, authority.certificate, Pair(good.certificate, other.key))
    assert not found.look()
    assert not found.look()
    assert caplog.text.count("are no pair") == 1
    mount(folder, b"nothing", good)
    assert not found.look()
    assert "ca.crt has no certificate" in caplog.text
    assert found.context.current is first
    mount(folder, authority.certificate, good)
    assert found.look()
    mount(folder, b"nothing", good)
    assert not WorkersCertificate(folder).context.is_ready
    assert not WorkersCertificate(tmp_path / "none").context.is_ready


async def test_a_gateway_starts_without_certificates_and_serves_by_them_once_they_come(tmp_path: Path) -> None:
    authority = Authority()
    async with a_world(tmp_path, authority, workers={"tlsFolder": str(tmp_path / "later")}) as world:
        await world.gateway.until_log("group chat-g0 speaks TLS, and there is no certificate for it yet")
        mount(tmp_path / "later", authority.certificate, authority.sign("client"))
        await world.gateway.until_state(lambda told: bool(told["models"][MODEL]["groups"]))
        assert await world.is_served()


async def test_a_worker_of_another_deployment_stands_in_for_none(tmp_path: Path) -> None:
    namespace = "models"
    signer = issue.root(issue.new_key(), datetime.now(UTC))

    def signed(use: issue.Use, host: str) -> Pair:
        made = issue.leaf(signer, use, host, issue.new_key(), datetime.now(UTC))
        assert made.key is not None
        return Pair(made.pem, issue.key_pem(made.key))

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    mount(ours, signer.pem, signed(issue.Use.GATEWAY, "chat-gateway.models.svc"))
    mount(theirs, signer.pem, signed(issue.Use.WORKERS, names.workers_host("other", namespace)))
    async with a_server(tmp_path, gateway_token=TOKEN, group="chat-g0", tls_folder=str(theirs)) as server:
        await server.serve()
        tls = WorkersCertificate(ours).context
        meant = Pool("127.0.0.1", server.port, tls, server_name=server_name_of("chat", namespace))
        with pytest.raises(UpstreamLost, match=r"no connection: .*[Hh]ostname mismatch"):
            await status_of(meant)
        right = Pool("127.0.0.1", server.port, tls, server_name=server_name_of("other", namespace))
        assert await status_of(right) == 200


async def test_a_certificate_of_workers_opens_no_other_worker(tmp_path: Path) -> None:
    signer = issue.root(issue.new_key(), datetime.now(UTC))
    made = issue.leaf(signer, issue.Use.WORKERS, "chat-worker.models.svc", issue.new_key(), datetime.now(UTC))
    assert made.key is not None
    folder = tmp_path / "workers"
    mount(folder, signer.pem, Pair(made.pem, issue.key_pem(made.key)))
    async with a_server(tmp_path, gateway_token=TOKEN, group="chat-g0", tls_folder=str(folder)) as server:
        await server.serve()
        pool = Pool("127.0.0.1", server.port, WorkersCertificate(folder).context, server_name="chat-worker.models.svc")
        with pytest.raises(UpstreamLost):
            await status_of(pool)


async def status_of(pool: Pool) -> int:
    connection = await pool.ask(b"GET /v1/models HTTP/1.1\r\nhost: chat\r\n\r\n", [])
    status = (await connection.head(DEADLINE_S)).status
    connection.close()
    return status

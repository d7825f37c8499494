"""Callers that an issuer's tokens or a judge make known, at a gateway over real sockets, also while these are away."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from glm_gateway.access.config import AuthConfig
from glm_gateway.access.decide import tenant_of
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.identity.issuer import Issuer, Pace
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.runtime.gate import gate_of
from integration.gateway_world import a_gateway, member
from integration.identity_world import Answer, Json, OidcIssuer, SmallServer, new_key, running
from integration.no_tls import NO_TLS
from integration.scripted_groups import ScriptedGroup, plain, serving

SECRET = b"0" * 16
DEADLINE_S = 20.0
BODY: Json = {"model": "m", "messages": []}
PATH = "/v1/chat/completions"


@dataclass
class World:
    http: httpx.AsyncClient
    group: ScriptedGroup
    gate: Gate

    async def ask(self, token: str | None, path: str = PATH) -> httpx.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return await self.http.post(path, json=BODY, headers=headers)

    async def refused(self, token: str | None) -> tuple[int, str]:
        """Return the status of a refusal, and what it says."""
        response = await self.ask(token)
        assert self.group.asked == []
        return response.status_code, response.json()["error"]["message"]


@contextlib.asynccontextmanager
async def a_world(auth: Json, **quotas: Any) -> AsyncIterator[World]:
    group = ScriptedGroup("g0", [[plain(200, b"{}")] for _ in range(100)])
    async with contextlib.AsyncExitStack() as stack:
        gate = await gate_of(AuthConfig.model_validate(auth), SECRET, stack)
        await stack.enter_async_context(serving(group))
        metering = Metering(quotas=QuotasConfig.model_validate(quotas))
        members = [member("g0", group.port)]
        url, _ = await stack.enter_async_context(a_gateway("m", members, gate=gate, metering=metering))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS))
        yield World(http, group, gate)


def of_issuer(issuer: OidcIssuer, **fields: Any) -> Json:
    return {"mode": "JWT", "jwt": {"issuer": issuer.url, "audience": "glm", **fields}}


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[OidcIssuer]:
    made = OidcIssuer()
    async with running(made):
        yield made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let keys that are not known be looked for each time."""
    monkeypatch.setattr(Issuer.__init__, "__defaults__", (Pace(unknown_s=0.0, retry_s=0.02),))


async def test_a_token_says_name_group_and_role(issuer: OidcIssuer) -> None:
    claims = {"groups": ["research", "x"], "role": "developer"}
    async with a_world(of_issuer(issuer, groupClaim="groups", roleClaim="role")) as world:
        assert (await world.ask(issuer.token(**claims))).status_code == 200
        (asked,) = world.group.asked
        assert asked.headers["x-glm-role"] == "developer"
        assert asked.headers["x-glm-tenant"] == tenant_of("me@example.com", SECRET)
        assert "authorization" not in asked.headers
        caller = await world.gate.caller("POST", PATH, [(b"x-api-key", issuer.token(**claims).encode())])
        assert (getattr(caller, "name", None), getattr(caller, "group", None)) == ("me@example.com", "research")


@pytest.mark.parametrize("subject", ["auth0|5f7c8ec7", "Alice@Example.com"])
async def test_a_subject_has_the_limits_of_its_name(issuer: OidcIssuer, subject: str) -> None:
    quotas = {"default": {"requestsPerMinute": 5}, "keys": {subject: {"requestsPerMinute": 1}}}
    async with a_world(of_issuer(issuer), **quotas) as world:
        own = [(await world.ask(issuer.token(sub=subject))).status_code for _ in range(2)]
        other = [(await world.ask(issuer.token(sub=subject.lower() + "x"))).status_code for _ in range(2)]
        assert (own, other) == ([200, 429], [200, 200])


async def test_what_is_open_needs_no_token_and_all_else_does(issuer: OidcIssuer) -> None:
    async with a_world(of_issuer(issuer)) as world:
        assert (await world.http.get("/health")).status_code == 200
        assert (await world.http.get("/v1/models")).status_code == 401
        assert (await world.refused(None))[0] == 401
        assert await world.refused("glm-a-key") == (
            401,
            "the credential is no token (JWT), which is what is taken here",
        )
        assert await world.refused(issuer.token(aud="other")) == (401, "the token is for another audience")
        assert await world.refused(issuer.token(sub="a\nb")) == (
            401,
            "of the token's claims, sub must be a text of 1 to 255 printable characters",
        )


async def test_keys_are_fetched_once_for_many_requests_and_for_strangers_at_most_each_half_minute(
    issuer: OidcIssuer,
) -> None:
    async with a_world(of_issuer(issuer)) as world:
        answers = await asyncio.gather(*(world.ask(issuer.token()) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert issuer.num_fetched == 1
        world.group.asked.clear()
        stranger = new_key()
        for number in range(10):
            status, said = await world.refused(issuer.token(f"k{number}x", stranger))
            assert (status, said) == (401, "the token is signed with a key that its issuer does not have")
        assert issuer.num_fetched <= 2


@pytest.mark.usefixtures("at_once")
async def test_a_new_key_is_fetched_when_it_is_first_met_once_for_all_who_wait(issuer: OidcIssuer) -> None:
    async with a_world(of_issuer(issuer)) as world:
        issuer.keys["k2"] = new_key()
        issuer.may_answer.clear()
        asking = [asyncio.create_task(world.ask(issuer.token("k2"))) for _ in range(5)]
        while issuer.asked[-1][1] == "/keys":  # noqa: ASYNC110 - nothing tells a test; this was the first fetch
            await asyncio.sleep(0.01)
        issuer.may_answer.set()
        assert {(await each).status_code for each in asking} == {200}
        assert issuer.num_fetched == 2


@pytest.mark.usefixtures("at_once")
async def test_keys_stay_good_while_the_issuer_is_away_and_nobody_new_is_let_in(
    issuer: OidcIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_world(of_issuer(issuer)) as world:
        await issuer.stop()
        status, _ = await world.refused(issuer.token("k9", new_key()))
        assert status == 503
        response = await world.ask(issuer.token("k9", new_key()))
        assert response.headers["retry-after"] == "5"
        assert (await world.ask(issuer.token())).status_code == 200
        assert sum("the last keys stay good" in each.message for each in caplog.records) == 1
        world.group.asked.clear()
        issuer.keys = {"k2": new_key()}
        await issuer.start()
        async with asyncio.timeout(DEADLINE_S):
            while (await world.ask(issuer.token("k2"))).status_code != 200:
                pass
        old = issuer.token("k1", new_key())
        world.group.asked.clear()
        assert (await world.refused(old))[0] == 401


@pytest.mark.usefixtures("at_once")
async def test_an_issuer_that_comes_later_is_found(issuer: OidcIssuer) -> None:
    await issuer.stop()
    async with a_world(of_issuer(issuer)) as world:
        status, said = await world.refused(issuer.token())
        assert (status, "cannot read the keys" in said) == (503, True)
        await issuer.start()
        async with asyncio.timeout(DEADLINE_S):
            while (await world.ask(issuer.token())).status_code != 200:
                pass


@pytest.mark.parametrize(
    ("fields", "breaks", "said"),
    [
        ({"issuer": "https://other.example"}, None, "describes itself as another issuer"),
        ({"jwks_uri": "file:///etc/passwd"}, None, "no jwks_uri"),
        ({"jwks_uri": None}, None, "no jwks_uri"),
        ({}, (302, {}), "it answered 302"),
        ({}, (200, b"<html>"), "no JSON"),
        ({}, (200, b"[" * 100_000), "no JSON"),
        ({}, (200, b" " * 2**21), "more than 1048576 bytes"),
        ({}, (500, {}), "it answered 500"),
    ],
)
async def test_an_issuer_that_tells_nonsense_is_said_to_and_opens_nothing(
    issuer: OidcIssuer, caplog: pytest.LogCaptureFixture, fields: Json, breaks: Answer | None, said: str
) -> None:
    issuer.fields, issuer.breaks = fields, breaks
    async with a_world(of_issuer(issuer)) as world:
        assert (await world.refused(issuer.token()))[0] == 503
        assert [each for each in caplog.records if said in each.message and each.levelno == logging.ERROR]


async def test_keys_may_be_told_at_an_address_of_the_file(issuer: OidcIssuer) -> None:
    issuer.fields = {"jwks_uri": None}
    async with a_world(of_issuer(issuer, jwksUrl=f"{issuer.url}/keys")) as world:
        assert (await world.ask(issuer.token())).status_code == 200


async def test_a_file_of_certificates_that_is_not_there_is_an_error_at_the_start(tmp_path: Path) -> None:
    auth = {"mode": "JWT", "jwt": {"issuer": "https://127.0.0.1:1", "audience": "a", "caFile": str(tmp_path / "no")}}
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(OSError, match="No such file"):
            await gate_of(AuthConfig.model_validate(auth), SECRET, stack)


class Court(SmallServer):
    """A judge that knows secrets by their callers."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.known: dict[str, Any] = {"s-alice": {"name": "alice", "group": "research", "role": "admin"}}
        self.breaks: Answer | None = None

    def _answer(self, method: str, path: str, body: Json) -> Answer:
        if self.breaks is not None:
            return self.breaks
        headers = body["headers"]
        secret = headers.get("x-api-key") or headers["authorization"].removeprefix("Bearer ")
        if body["path"] == "/tokenize":
            return 403, {}
        return (200, self.known[secret]) if secret in self.known else (401, {})


@pytest_asyncio.fixture
async def court() -> AsyncIterator[Court]:
    made = Court()
    async with running(made):
        yield made


def of_court(court: Court, **fields: Any) -> Json:
    return {"mode": "Judge", "judge": {"url": f"{court.url}/judge", **fields}}


async def test_a_judge_is_told_method_path_and_credential_and_no_more(court: Court) -> None:
    async with a_world(of_court(court)) as world:
        headers = {"authorization": "Bearer s-alice", "cookie": "a=b", "x-forwarded-for": "1.2.3.4"}
        response = await world.http.post(f"{PATH}?q=secret", json=BODY, headers=headers)
        assert response.status_code == 200
        assert court.asked == [
            ("POST", "/judge", {"method": "POST", "path": PATH, "headers": {"authorization": "Bearer s-alice"}})
        ]
        assert world.group.asked[0].headers["x-glm-role"] == "admin"
        assert world.group.asked[0].headers["x-glm-tenant"] == tenant_of("alice", SECRET)


async def test_its_answers_are_kept_for_a_moment_each_for_its_credential_and_its_path(court: Court) -> None:
    async with a_world(of_court(court, cacheSeconds=3600)) as world:
        for _ in range(3):
            assert (await world.ask("s-alice")).status_code == 200
            world.group.asked.clear()
            assert (await world.refused("s-mallory"))[0] == 401
        assert len(court.asked) == 2
        assert (await world.ask("s-alice", "/tokenize")).status_code == 403
        assert len(court.asked) == 3
        court.breaks = (500, {})
        assert (await world.ask("s-alice")).status_code == 200


async def test_nothing_is_kept_where_that_is_said(court: Court) -> None:
    async with a_world(of_court(court, cacheSeconds=0)) as world:
        assert (await world.ask("s-alice")).status_code == 200
        court.known.clear()
        assert (await world.ask("s-alice")).status_code == 401


async def test_who_asks_the_same_at_the_same_time_has_one_answer(court: Court) -> None:
    async with a_world(of_court(court)) as world:
        court.may_answer.clear()
        asking = [asyncio.create_task(world.ask("s-alice")) for _ in range(10)]
        while not court.asked:  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)
        court.may_answer.set()
        assert {(await each).status_code for each in asking} == {200}
        assert len(court.asked) == 1


async def test_a_client_that_leaves_does_not_end_the_question_for_others(court: Court) -> None:
    async with a_world(of_court(court)) as world:
        court.may_answer.clear()
        leaving = asyncio.create_task(world.ask("s-alice"))
        staying = asyncio.create_task(world.ask("s-alice"))
        while not court.asked:  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)
        leaving.cancel()
        court.may_answer.set()
        assert (await staying).status_code == 200


@pytest.mark.parametrize(
    "breaks",
    [
        (500, {}),
        (302, {}),
        (204, b""),
        (200, b"yes"),
        (200, []),
        (200, {}),
        (200, {"name": ""}),
        (200, {"name": "a", "role": "x\r\ny: z"}),
        (200, b"{" * 10_000),
    ],
)
async def test_a_judge_that_tells_nonsense_lets_nobody_in_and_nothing_of_it_is_kept(
    court: Court, breaks: Answer
) -> None:
    async with a_world(of_court(court)) as world:
        court.breaks = breaks
        response = await world.ask("s-alice")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert world.group.asked == []
        court.breaks = None
        assert (await world.ask("s-alice")).status_code == 200


async def test_a_judge_that_is_away_or_silent_lets_nobody_in(court: Court, caplog: pytest.LogCaptureFixture) -> None:
    async with a_world(of_court(court, timeoutSeconds=0.2)) as world:
        court.may_answer.clear()
        assert (await world.refused("s-alice"))[0] == 503
        court.may_answer.set()
        await court.stop()
        for _ in range(3):
            assert (await world.refused("s-alice"))[0] == 503
        assert sum("requests are refused" in each.message for each in caplog.records) == 1
        await court.start()
        assert (await world.ask("s-alice")).status_code == 200


async def test_no_credential_is_told_or_logged(
    court: Court, issuer: OidcIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "glm_gateway")
    token = issuer.token(aud="other", canary="glm-canary")
    async with a_world(of_court(court)) as judged, a_world(of_issuer(issuer)) as world:
        court.breaks = (200, {"name": ["glm-canary"]})
        said = [await judged.refused("glm-canary"), await world.refused(token), await world.refused("glm-canary")]
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("glm_"))
    for secret in ("glm-canary", token, token.split(".")[1]):
        assert secret not in json.dumps(said)
        assert secret not in ours

"""What may come back instead of an answer, and what is sent."""

import gzip
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from glm_operator.cluster.metrics.access import MAX_ANSWER_BYTES, Access, Connection
from glm_operator.cluster.metrics.reading import MetricsProblem
from unit.operator.cluster.metrics.canned_prometheus import EMPTY, Canned, canned_prometheus


@pytest.fixture
async def canned() -> AsyncIterator[Canned]:
    async with canned_prometheus() as found:
        yield found


@pytest.fixture
async def connection(canned: Canned) -> AsyncIterator[Connection]:
    found = Connection(Access(url=f"{canned.url}/prefix"))
    yield found
    await found.close()


async def the_problem(connection: Connection) -> MetricsProblem:
    with pytest.raises(MetricsProblem) as caught:
        await connection.instant("up")
    return caught.value


async def test_a_query_is_a_get_below_the_prefix_with_a_limit_of_its_time(
    canned: Canned, connection: Connection
) -> None:
    assert await connection.instant('up{a="b&c"}') == []
    (request,) = canned.asked
    assert (request.method, request.path) == ("GET", "/prefix/api/v1/query")
    assert dict(request.query) == {"query": 'up{a="b&c"}', "timeout": "4000ms"}
    assert "Authorization" not in request.headers


async def test_a_token_is_read_again_when_the_secret_changes(canned: Canned, tmp_path: Path) -> None:
    token = tmp_path / "token"
    connection = Connection(Access(url=canned.url, bearer_token_file=token))
    for text in ("one\n", "other"):
        token.write_text(text)
        await connection.instant("up")
    assert [request.headers["Authorization"] for request in canned.asked] == ["Bearer one", "Bearer other"]
    await connection.close()


@pytest.mark.parametrize("text", [None, "", "\n", "two\nlines", "two\N{LATIN SMALL LETTER E WITH ACUTE}"])
async def test_a_token_that_is_none_is_not_sent_and_not_printed(
    canned: Canned, tmp_path: Path, text: str | None
) -> None:
    token = tmp_path / "token"
    if text is not None:
        token.write_text(text)
    connection = Connection(Access(url=canned.url, bearer_token_file=token))
    problem = await the_problem(connection)
    assert problem.trouble.reason == "MetricsRefused"
    assert str(token) in str(problem)
    assert "two" not in str(problem)
    assert canned.asked == []
    await connection.close()


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_refusal_is_told_in_the_words_of_prometheus(
    canned: Canned, connection: Connection, status: int
) -> None:
    canned.says_json({"status": "error", "errorType": "execution", "error": "too many samples"}, status)
    problem = await the_problem(connection)
    assert problem.trouble.reason == "MetricsRefused"
    assert str(problem) == f"Prometheus at {canned.url}/prefix answers {status}: execution: too many samples"


async def test_a_page_of_a_proxy_is_told_without_its_tags(canned: Canned, connection: Connection) -> None:
    canned.says(status=503, text="<html><body><h1>503</h1>no  healthy\nupstream</body></html>")
    problem = await the_problem(connection)
    assert problem.trouble.reason == "MetricsUnreachable"
    assert str(problem).endswith("answers 503: 503 no healthy upstream")


@pytest.mark.parametrize(
    "text",
    [
        *("", "<html>Welcome</html>", "[]", "[" * 100_000, "\udcff"),
        *('{"status":"success"}', '{"status":"success","data":{}}', '{"status":"success","data":["result"]}'),
        *('{"status":"success","data":"result"}', '{"status":"success","data":5}'),
    ],
)
async def test_what_is_no_answer_of_prometheus_is_unreachable(
    canned: Canned, connection: Connection, text: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=text.encode(errors="surrogateescape"))

    canned.answer = answer
    problem = await the_problem(connection)
    assert problem.trouble.reason == "MetricsUnreachable"
    assert "not Prometheus'" in str(problem)


async def test_an_answer_without_end_is_cut_off_even_where_it_is_small_on_the_wire(
    canned: Canned, connection: Connection
) -> None:
    bomb = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1))

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    canned.answer = answer
    problem = await the_problem(connection)
    assert problem.trouble.reason == "MetricsRefused"
    assert str(problem).endswith("sent more than 32 MiB")


async def test_a_packed_answer_is_read(canned: Canned, connection: Connection) -> None:
    async def answer(request: web.Request) -> web.Response:
        response = web.json_response(EMPTY)
        response.enable_compression(web.ContentCoding.gzip)
        assert "gzip" in request.headers["Accept-Encoding"]
        return response

    canned.answer = answer
    assert await connection.instant("up") == []


async def test_a_redirect_to_another_host_is_not_followed(canned: Canned, tmp_path: Path) -> None:
    async with canned_prometheus() as other:
        canned.says(status=302, headers={"Location": f"{other.url}/login?next=secret"})
        token = tmp_path / "token"
        token.write_text("token")
        connection = Connection(Access(url=canned.url, bearer_token_file=token))
        problem = await the_problem(connection)
        assert problem.trouble.reason == "MetricsRefused"
        assert f"redirects to {other.url}/login; " in str(problem)
        assert other.asked == []
        await connection.close()


async def test_no_password_of_a_url_is_told(canned: Canned) -> None:
    canned.says(status=302, headers={"Location": "http://me:pa55w0rd@elsewhere:9090/login#pa55w0rd"})
    host = canned.url.removeprefix("http://")
    for url in (f"http://operator:pa55w0rd@{host}", "http://operator:pa55w0rd@127.0.0.1:9"):
        connection = Connection(Access(url=url))
        problem = await the_problem(connection)
        await connection.close()
        assert "pa55w0rd" not in str(problem)
        assert "Prometheus at http://...@127.0.0.1:" in str(problem)


async def test_a_redirect_on_the_same_host_is_followed_and_one_in_a_circle_is_not(
    canned: Canned, connection: Connection
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/prefix/"):
            return web.Response(status=308, headers={"Location": f"/moved?{request.query_string}"})
        return web.json_response(EMPTY)

    canned.answer = answer
    assert await connection.instant("up") == []
    assert canned.asked[-1].query["query"] == "up"

    canned.says(status=302, headers={"Location": "/prefix/api/v1/query"})
    assert (await the_problem(connection)).trouble.reason == "MetricsRefused"


async def test_a_warning_is_logged_once(
    canned: Canned, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "glm_operator")
    for warning in ("a store is away", "a store is away", "another is"):
        canned.says_json({**EMPTY, "warnings": [warning]})
        assert await connection.instant("up") == []
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["a store is away", "another is"]


async def test_an_authority_that_cannot_be_read_is_named(canned: Canned, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    for file in (tmp_path / "ca.crt", tmp_path / "missing.crt"):
        connection = Connection(Access(url=canned.url, ca_file=file))
        problem = await the_problem(connection)
        assert problem.trouble.reason == "MetricsUnreachable"
        assert str(file) in str(problem)
        await connection.close()

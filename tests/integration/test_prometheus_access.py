"""What lets us into a real Prometheus, and what keeps us out: its address, TLS, a password, a client's certificate."""

import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from glm_operator.autoscale.series import Series
from glm_operator.cluster.metrics.scrape import Scraper
from integration.free_ports import free_port
from integration.metered_worker import DEPLOYMENT, NAMESPACE, MeteredWorker, serving
from integration.prometheus_process import a_certificate, prometheus_process, scrape_config
from integration.source_world import Open, Source, clients, the_problem, wait_for

PASSWORD = "a pass word"
BCRYPT = "$2b$04$u7J0r3zRjOjjcvYfGzmyd.Sr8.XdL8.QFAqFSKZbjsl/.s32x4tFK"  # of PASSWORD; 4 rounds: it is tried often


@pytest.fixture
def workers() -> Iterator[list[MeteredWorker]]:
    with serving(MeteredWorker("chat-g0"), MeteredWorker("chat-g1")) as found:
        yield found


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    async with clients() as make:
        yield make


async def test_a_prometheus_that_is_not_there_is_unreachable_with_its_url(opened: Open) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    problem = await the_problem(opened(url))
    assert problem.trouble.reason == "MetricsUnreachable"
    assert str(problem).startswith(f"Prometheus at {url} cannot be reached: ")


async def test_tls_and_a_password_from_files_let_us_in_and_a_wrong_one_does_not(
    tmp_path: Path, workers: list[MeteredWorker], opened: Open
) -> None:
    own = a_certificate(tmp_path)
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text("operator\n")
    password.write_text(f"{PASSWORD}\n")
    web = {
        "tls_server_config": {"cert_file": str(own.certificate), "key_file": str(own.key)},
        "basic_auth_users": {"operator": BCRYPT},
    }
    context = ssl.create_default_context(cafile=own.certificate)
    configs = [scrape_config([workers[0].address])]
    with prometheus_process(tmp_path / "prometheus", configs, web_config=web, context=context) as process:
        files = {"username_file": user, "password_file": password}
        prometheus = opened(process.url, ca_file=own.certificate, **files)
        source = Source("Prometheus", workers, Scraper(), prometheus)

        async def some() -> list[Series] | None:
            return await source.demand() or None

        await wait_for("series", some)

        password.write_text("another")
        problem = await the_problem(prometheus)
        assert problem.trouble.reason == "MetricsRefused"
        assert "401: Unauthorized" in str(problem)
        assert "another" not in str(problem)

        password.write_text(PASSWORD)
        assert await prometheus.demand(NAMESPACE, DEPLOYMENT), "the Secret was renewed, and read again"

        untrusting = await the_problem(opened(process.url, **files))
        assert untrusting.trouble.reason == "MetricsUnreachable"
        assert "CERTIFICATE_VERIFY_FAILED" in str(untrusting)

        password.unlink()
        unreadable = await the_problem(prometheus)
        assert unreadable.trouble.reason == "MetricsRefused"
        assert str(password) in str(unreadable)
        await source.scraper.close()


async def test_a_client_certificate_is_shown_and_a_renewed_authority_is_trusted(tmp_path: Path, opened: Open) -> None:
    own, other = a_certificate(tmp_path), a_certificate(tmp_path, "other")
    web = {
        "tls_server_config": {
            "cert_file": str(own.certificate),
            "key_file": str(own.key),
            "client_auth_type": "RequireAndVerifyClientCert",
            "client_ca_file": str(own.certificate),
        }
    }
    context = ssl.create_default_context(cafile=own.certificate)
    context.load_cert_chain(own.certificate, own.key)
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(other.certificate.read_bytes())
    with prometheus_process(tmp_path / "prometheus", web_config=web, context=context) as process:
        assert (await the_problem(opened(process.url, ca_file=own.certificate))).trouble.reason == "MetricsUnreachable"
        prometheus = opened(process.url, ca_file=trusted, certificate_file=own.certificate, key_file=own.key)
        assert (await the_problem(prometheus)).trouble.reason == "MetricsUnreachable"
        trusted.write_bytes(own.certificate.read_bytes())
        assert (await the_problem(prometheus)).trouble.reason == "NoSeries", "it answers"

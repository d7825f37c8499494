"""The two sources of autoscaling's numbers on the same workers: a real Prometheus that scrapes them, and ourselves."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import DEMAND_METRICS, HISTOGRAMS, Attained, Buckets, Latencies, Series
from glm_operator.cluster.metrics.access import Access
from glm_operator.cluster.metrics.prometheus import Prometheus
from glm_operator.cluster.metrics.queries import demand_query
from glm_operator.cluster.metrics.reading import Reading
from glm_operator.cluster.metrics.recording import recording_rules
from glm_operator.cluster.metrics.scrape import Scraper
from glm_operator.cluster.metrics.sources import Sources
from integration.metered_worker import (
    DEPLOYMENT,
    EXTRA_LABELS,
    GAUGES,
    MET,
    NAMESPACE,
    RATES,
    REQUESTS_PER_S,
    SLO_CLASS,
    MeteredWorker,
    serving,
    share_until,
)
from integration.prometheus_process import (
    Json,
    PrometheusProcess,
    backfill,
    prometheus_process,
    scrape_config,
)
from integration.source_world import (
    PERIOD_S,
    SLO,
    Open,
    Source,
    clients,
    scraped,
    slope,
    the_attained,
    the_buckets,
    the_problem,
    wait_for,
)


@pytest.fixture
def workers() -> Iterator[list[MeteredWorker]]:
    with serving(MeteredWorker("chat-g0"), MeteredWorker("chat-g1")) as found:
        yield found


@pytest.fixture(params=["Prometheus", "Workers"])
async def source(request: pytest.FixtureRequest, tmp_path: Path, workers: list[MeteredWorker]) -> AsyncIterator[Source]:
    scraper = Scraper(latency_step_s=0)
    if request.param == "Workers":
        yield Source("Workers", workers, scraper, None)
    else:
        with prometheus_process(tmp_path, [scrape_config([worker.address for worker in workers])]) as process:
            prometheus = Prometheus(Access(url=process.url))
            yield Source("Prometheus", workers, scraper, prometheus)
            await prometheus.close()
    await scraper.close()


async def test_demand_is_every_metric_of_every_group_with_its_labels_and_times(source: Source) -> None:
    asked_s = time.time()

    async def three_seconds() -> list[Series] | None:
        found = await source.demand()
        is_enough = len(found) == 2 * len(DEMAND_METRICS) and all(
            each.samples[-1][0] - each.samples[0][0] >= 3.0 for each in found
        )
        return found if is_enough else None

    found = await wait_for("three seconds of every series", three_seconds)
    by_name = {(each.name, each.labels["group"]): each for each in found}
    assert by_name.keys() == {(name, worker.group) for name in DEMAND_METRICS for worker in source.workers}
    for (name, group), series in by_name.items():
        worker = next(each for each in source.workers if each.group == group)
        assert series.labels == {**worker.labels, **EXTRA_LABELS.get(name, {})}
        times = [at_s for at_s, _ in series.samples]
        assert times == sorted(times)
        assert asked_s - 5 < times[0], "samples are as old as their scrape"
        assert time.time() - 2 < times[-1] <= time.time()
        if name in RATES:
            assert slope(series) == pytest.approx(RATES[name], rel=0.15), "a scrape on a busy machine is late"
        elif name in GAUGES:
            assert {value for _, value in series.samples} == {GAUGES[name]}


async def test_latencies_are_the_buckets_of_all_groups_together(source: Source) -> None:
    async def enough() -> Latencies | None:
        found = await source.latencies()
        attained = the_attained(found, 300.0)
        return found if attained is not None and attained.requests > 150 and found.buckets else None

    found = await wait_for("150 requests", enough)
    assert {(each.signal, each.window_s) for each in found.buckets} == {
        (s, w) for s in HISTOGRAMS for w in (60.0, 300.0)
    }
    for each in found.buckets:
        assert each.slo_class == SLO_CLASS
        edges, counts = zip(*each.counts, strict=True)
        assert edges == (0.1, 0.5, 1.0, float("inf"))
        assert [count / counts[-1] for count in counts] == pytest.approx([share_until(e) for e in edges], abs=0.02)
    for window_s in (300.0, 3600.0):
        attained = the_attained(found, window_s)
        assert attained is not None
        assert attained.met / attained.requests == pytest.approx(MET, abs=0.02)


async def test_a_restart_of_a_worker_loses_no_request_and_invents_none(source: Source) -> None:
    begun_s = time.time()

    async def more_than(requests: float) -> Attained | None:
        attained = the_attained(await source.latencies(), 300.0)
        return attained if attained is not None and attained.requests > requests else None

    before = await wait_for("requests", lambda: more_than(100))
    source.workers[0].restart()
    after = await wait_for("more requests", lambda: more_than(before.requests + 150))
    # Between the last scrape before it and the restart something is lost; Prometheus fills up half an interval.
    most = 2 * REQUESTS_PER_S * (time.time() - begun_s + 4 * PERIOD_S)
    assert before.requests + 150 < after.requests <= most
    assert after.met / after.requests == pytest.approx(MET, abs=0.02)


async def test_edges_that_a_window_holds_only_in_part_are_left_out(source: Source) -> None:
    async def with_edges(*edges: float) -> Buckets | None:
        buckets = the_buckets(await source.latencies(), "ttft", 60.0)
        if buckets is None or tuple(edge for edge, _ in buckets.counts) != (*edges, float("inf")):
            return None
        return buckets if buckets.counts[-1][1] > 100 else None

    before = await wait_for("the first edges", lambda: with_edges(0.1, 0.5, 1.0))
    for worker in source.workers:
        worker.change_edges((0.1, 0.25, 1.0))

    async def mixed() -> Buckets | None:
        buckets = await with_edges(0.1, 1.0)
        return buckets if buckets is not None and buckets.counts[-1][1] > before.counts[-1][1] + 100 else None

    after = await wait_for("the edges of both", mixed)
    counts = [count for _, count in after.counts]
    assert counts == sorted(counts)
    assert counts[0] / counts[-1] == pytest.approx(share_until(0.1), abs=0.03)


async def test_a_group_that_stops_answering_keeps_the_times_of_its_last_samples(source: Source) -> None:
    async def both_groups() -> bool | None:
        return {each.labels["group"] for each in await source.demand()} == {"chat-g0", "chat-g1"} or None

    await wait_for("both groups", both_groups)
    source.workers[1].leave()
    left_s = time.time()

    async def newer_samples_of_the_other() -> list[Series] | None:
        found = await source.demand()
        newest = {each.labels["group"]: each.samples[-1][0] for each in found}
        return found if newest.get("chat-g0", 0.0) > left_s + 2 else None

    found = await wait_for("samples of the other group", newer_samples_of_the_other)
    assert all(each.samples[-1][0] <= left_s for each in found if each.labels["group"] == "chat-g1")
    assert any(each.labels["group"] == "chat-g1" for each in found), "old is not gone: its age is known"


# What only Prometheus can do wrong.


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    async with clients() as make:
        yield make


RELABELLINGS: Mapping[str, Sequence[Json]] = {
    "no-deployment": [{"action": "labeldrop", "regex": "deployment"}],
    "no-group": [{"action": "labeldrop", "regex": "group"}],
    "no-buckets": [{"action": "drop", "source_labels": ["__name__"], "regex": ".*_bucket"}],
    "twice": [],
    "no-rules": [],
}
"""By the deployment that suffers from it."""


@pytest.fixture(scope="module")
def misled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusProcess]:
    """Yield a Prometheus that does something else to each of several deployments."""
    workers = [MeteredWorker(f"{deployment}-g0", deployment) for deployment in RELABELLINGS]
    with serving(*workers):
        configs = [
            scrape_config([worker.address], job=worker.deployment, relabelling=RELABELLINGS[worker.deployment])
            for worker in workers
        ]
        configs += [scrape_config([worker.address], job="again") for worker in workers if worker.deployment == "twice"]
        with prometheus_process(tmp_path_factory.mktemp("misled"), configs) as process:
            yield process


async def test_a_relabelling_that_drops_our_labels_is_no_series_with_a_query_to_paste(
    misled: PrometheusProcess, opened: Open
) -> None:
    await scraped(misled, 'glm_num_requests_running{job="no-deployment"}')
    problem = await the_problem(opened(misled.url), deployment="no-deployment")
    assert problem.trouble.reason == "NoSeries"
    query = demand_query(NAMESPACE, "no-deployment")
    assert query in str(problem)
    async with httpx.AsyncClient() as http:
        pasted = (await http.get(f"{misled.url}/api/v1/query", params={"query": query})).json()
    assert pasted == {"status": "success", "data": {"resultType": "matrix", "result": []}}


async def test_a_relabelling_that_drops_the_group_is_no_series_as_well(misled: PrometheusProcess, opened: Open) -> None:
    await scraped(misled, 'glm_num_requests_running{job="no-group"}')
    problem = await the_problem(opened(misled.url), deployment="no-group")
    assert problem.trouble.reason == "NoSeries"
    assert "without the label group" in str(problem)


async def test_histograms_that_are_dropped_are_no_series_beside_demand(misled: PrometheusProcess, opened: Open) -> None:
    await scraped(misled, 'glm_num_requests_running{job="no-buckets"}')
    prometheus = opened(misled.url)
    assert await prometheus.demand(NAMESPACE, "no-buckets")
    problem = await the_problem(prometheus, "latencies", "no-buckets")
    assert problem.trouble.reason == "NoSeries"
    assert "does a relabelling drop _bucket" in str(problem)


async def test_recording_rules_that_are_not_loaded_are_no_series_and_named(
    misled: PrometheusProcess, opened: Open
) -> None:
    await scraped(misled, 'glm_num_requests_running{job="no-rules"}')
    problem = await the_problem(opened(misled.url, has_recording_rules=True), "latencies", "no-rules")
    assert problem.trouble.reason == "NoSeries"
    assert "are the rules loaded" in str(problem)


async def test_a_group_that_is_scraped_twice_is_there_once(misled: PrometheusProcess, opened: Open) -> None:
    for job in ("twice", "again"):
        await scraped(misled, f'glm_num_requests_running{{job="{job}"}}')
    found = await opened(misled.url).demand(NAMESPACE, "twice")
    assert sorted(each.name for each in found) == sorted(DEMAND_METRICS)


async def test_recorded_series_tell_what_raw_ones_tell(
    tmp_path: Path, workers: list[MeteredWorker], opened: Open
) -> None:
    config = scrape_config([worker.address for worker in workers])
    with prometheus_process(tmp_path, [config], rules=recording_rules()) as process:
        raw, recorded = opened(process.url), opened(process.url, has_recording_rules=True)
        source = Source("Prometheus", workers, Scraper(), recorded)

        async def enough() -> Latencies | None:
            found = await source.latencies()
            attained = the_attained(found, 300.0)
            return found if attained is not None and attained.requests > 150 and len(found.buckets) == 8 else None

        of_rules = await wait_for("recorded latencies", enough)
        of_buckets = await raw.latencies(NAMESPACE, DEPLOYMENT, SLO)
        assert len(of_rules.buckets) == len(of_buckets.buckets)
        for one, other in zip(of_rules.buckets, of_buckets.buckets, strict=True):
            assert [edge for edge, _ in one.counts] == [edge for edge, _ in other.counts]
            shares = [[count / each.counts[-1][1] for _, count in each.counts] for each in (one, other)]
            assert shares[0] == pytest.approx(shares[1], abs=0.02)
        assert [(a.slo_class, a.window_s) for a in of_rules.attained] == [
            (a.slo_class, a.window_s) for a in of_buckets.attained
        ]
        await source.scraper.close()


def past(hours: int, *, seen_s_ago: int = 600) -> str:
    """Return what a deployment counted in the past: until ten minutes ago, 60 requests a minute, half of them kept.

    seen_s_ago: when it was scraped last.
    """
    end_s = int(time.time()) - 600
    lines = ["# TYPE glm_slo_requests counter"]
    labels = f'namespace="{NAMESPACE}",deployment="{DEPLOYMENT}",group="chat-g0",slo_class="{SLO_CLASS}"'
    minutes = range(-hours * 60, 1)
    for met in ("true", "false"):
        lines += [
            f'glm_slo_requests_total{{{labels},met="{met}"}} {30 * (minute + hours * 60)} {end_s + 60 * minute}'
            for minute in minutes
        ]
    lines.append("# TYPE glm_num_requests_running gauge")
    lines += [f"glm_num_requests_running{{{labels}}} 1 {int(time.time()) - seen_s_ago - 60 * ago}" for ago in (1, 0)]
    return "\n".join([*lines, "# EOF\n"])


@pytest.mark.parametrize(("seen_s_ago", "reason"), [(60, "MetricsStale"), (600, "NoSeries")])
async def test_series_that_ended_a_minute_ago_are_stale_and_after_some_minutes_they_are_missing(
    tmp_path: Path, opened: Open, seen_s_ago: int, reason: str
) -> None:
    backfill(tmp_path, past(hours=1, seen_s_ago=seen_s_ago))
    with prometheus_process(tmp_path) as process:
        problem = await the_problem(opened(process.url))
        assert problem.trouble.reason == reason


@pytest.mark.parametrize(("window", "covered_h"), [("6h", None), ("30d", 48)])
@pytest.mark.long
async def test_long_windows_are_read_as_far_as_prometheus_reaches_back(
    tmp_path: Path,
    workers: list[MeteredWorker],
    opened: Open,
    window: str,
    covered_h: float | None,
) -> None:
    backfill(tmp_path, past(hours=48))
    slo = Slo.model_validate({"classes": [{"name": SLO_CLASS, "ttft": "500ms", "window": window}]})
    with prometheus_process(tmp_path, [scrape_config([workers[0].address])]) as process:
        await scraped(process, "glm_time_to_first_token_seconds_bucket")
        found = (await opened(process.url).latencies(NAMESPACE, DEPLOYMENT, slo)).attained[-1]
    hours = covered_h or 6
    assert found.window_s == {"6h": 6 * 3600.0, "30d": 30 * 86400.0}[window]
    assert found.requests == pytest.approx(hours * 3600, rel=0.1)
    assert found.met / found.requests == pytest.approx(0.5, abs=0.02)
    if covered_h is None:
        assert found.covered_s is None
    else:
        assert found.covered_s == pytest.approx(covered_h * 3600, rel=0.05)


# Both together.


@pytest.mark.long
async def test_while_prometheus_is_away_workers_are_asked_and_afterwards_it_is_asked_again(
    tmp_path: Path, workers: list[MeteredWorker], opened: Open
) -> None:
    with prometheus_process(tmp_path, [scrape_config([worker.address for worker in workers])]) as process:
        await scraped(process, "glm_num_requests_running")
        sources = Sources(Scraper(), opened(process.url))
        targets = [worker.target for worker in workers]

        async def reading_of(source: str) -> Reading | None:
            reading = await sources.read(NAMESPACE, DEPLOYMENT, targets, SLO)
            assert reading.series, "no period is without numbers"
            return reading if reading.source == source else None

        before = await wait_for("a reading from Prometheus", lambda: reading_of("Prometheus"))
        assert before.trouble is None
        process.stop()
        away = await wait_for("a reading from workers", lambda: reading_of("Workers"))
        assert away.trouble is not None
        assert away.trouble.reason == "MetricsUnreachable"
        assert {each.name for each in away.series} == {each.name for each in before.series}
        held = await sources.read(NAMESPACE, DEPLOYMENT, targets, SLO, "Hold")
        assert (held.series, held.latencies, held.trouble) == ((), None, away.trouble)
        process.start()
        after = await wait_for("Prometheus again", lambda: reading_of("Prometheus"))
        assert after.trouble is None
        await sources.close()

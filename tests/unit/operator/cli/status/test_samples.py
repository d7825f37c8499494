"""What scrapes of leading pods say, one after the other."""

from glm_operator.cli.status.samples import Samples, Scrape, read_text

LABELS = 'namespace="models",deployment="chat",group="{group}"'


def a_text(group: str, *, fast: int, slow: int = 0, running: int = 2) -> str:
    """Return what a worker shows that has answered so many requests within 0.5 s, and so many within 1 s."""
    labels = LABELS.format(group=group)
    of_class = f'{labels},slo_class="chat"'
    lines = [
        "# TYPE glm_num_requests_running gauge",
        f"glm_num_requests_running{{{labels}}} {running}",
        f'glm_kv_cache_usage_ratio{{{labels},rank="0"}} 0.25',
        f'glm_time_to_first_token_seconds_bucket{{{of_class},le="0.5"}} {fast}',
        f'glm_time_to_first_token_seconds_bucket{{{of_class},le="1.0"}} {fast + slow}',
        f'glm_time_to_first_token_seconds_bucket{{{of_class},le="+Inf"}} {fast + slow}',
        f'glm_slo_requests_total{{{of_class},met="true"}} {fast}',
        f'glm_slo_requests_total{{{of_class},met="false"}} {slow}',
        "process_cpu_seconds_total 12",
    ]
    return "\n".join(lines) + "\n"


def a_scrape(at_s: float, **texts: str) -> Scrape:
    found = {f"chat-{name}": samples for name, text in texts.items() if (samples := read_text(text)) is not None}
    return Scrape(at_s, found)


def test_gauges_are_those_of_the_last_scrape() -> None:
    samples = Samples()
    samples.add(a_scrape(0, g0=a_text("g0", fast=1)))
    samples.add(a_scrape(5, g0=a_text("g0", fast=1, running=7)))
    assert samples.gauges("chat-g0") == {"running": 7, "kv_usage": 0.25}
    assert samples.gauges("chat-g1") == {}


def test_latency_is_of_the_time_between_scrapes_over_all_groups() -> None:
    samples = Samples()
    samples.add(a_scrape(0, g0=a_text("g0", fast=1000), g1=a_text("g1", fast=0, slow=500)))
    assert samples.latency("chat", "ttft", 95) is None, "one scrape says nothing of now"
    samples.add(a_scrape(10, g0=a_text("g0", fast=1050), g1=a_text("g1", fast=0, slow=550)))
    assert samples.latency("chat", "ttft", 50) == 0.5
    assert samples.attainment("chat") == 0.5
    assert samples.latency("other", "ttft", 95) is None
    assert samples.span_s == 10


def test_without_a_request_there_is_no_latency() -> None:
    samples = Samples()
    for at_s in (0, 10):
        samples.add(a_scrape(at_s, g0=a_text("g0", fast=1000)))
    assert (samples.latency("chat", "ttft", 95), samples.attainment("chat")) == (None, None)


def test_a_worker_that_counts_from_zero_again_counts_from_there() -> None:
    samples = Samples()
    samples.add(a_scrape(0, g0=a_text("g0", fast=1000)))
    samples.add(a_scrape(10, g0=a_text("g0", fast=1, slow=1)))
    assert samples.attainment("chat") == 0.5


def test_a_group_that_came_later_counts_from_its_first_scrape() -> None:
    samples = Samples()
    samples.add(a_scrape(0, g0=a_text("g0", fast=10)))
    samples.add(a_scrape(5, g0=a_text("g0", fast=10), g1=a_text("g1", fast=0, slow=900)))
    samples.add(a_scrape(10, g0=a_text("g0", fast=20), g1=a_text("g1", fast=0, slow=900)))
    assert samples.attainment("chat") == 1.0


def test_what_a_server_counted_before_it_was_silent_for_a_scrape_is_no_news() -> None:
    samples = Samples()
    samples.add(a_scrape(0, g0="glm_group_draining 0\n"))
    samples.add(a_scrape(5, g0=a_text("g0", fast=0, slow=900)))
    assert samples.attainment("chat") is None
    samples.add(a_scrape(10, g0=a_text("g0", fast=20, slow=900)))
    assert samples.attainment("chat") == 1.0


def test_what_is_older_than_the_window_is_dropped() -> None:
    samples = Samples(window_s=60)
    for at_s in range(0, 200, 10):
        samples.add(a_scrape(at_s, g0=a_text("g0", fast=at_s)))
    assert samples.span_s == 60


def test_a_text_that_is_no_exposition_is_no_answer() -> None:
    assert read_text("glm_num_requests_running{ oops") is None


def test_a_counter_that_is_no_number_counts_nothing() -> None:
    samples = Samples()
    samples.add(a_scrape(0, g0=a_text("g0", fast=10)))
    text = a_text("g0", fast=20).replace('met="true"} 20', 'met="true"} NaN').replace('le="0.5"} 20', 'le="0.5"} NaN')
    samples.add(a_scrape(10, g0=text))
    assert samples.attainment("chat") is None
    assert samples.latency("chat", "ttft", 95) == 0.975


def test_a_bucket_without_an_edge_is_left_out() -> None:
    samples = Samples()
    for at_s, fast in ((0, 10), (10, 20)):
        text = a_text("g0", fast=fast).replace('le="1.0"', 'le="one"')
        samples.add(a_scrape(at_s, g0=text))
    assert samples.latency("chat", "ttft", 95) == 0.475

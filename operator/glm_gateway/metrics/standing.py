"""What stands now of each model, asked when somebody scrapes."""

import time
from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glm_gateway.models.model import Model


class StandingOf(Collector):
    """models: by name, all that have requests."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        held = _gauge("requests_held", "Requests that wait for a group.")
        oldest = _gauge("oldest_held_seconds", "How long the first of them has waited.")
        running = _gauge("requests_running", "Requests of this gateway that groups have.")
        groups = _gauge("groups", "Groups that this gateway knows, ready or not.")
        ready = _gauge("groups_ready", "Groups that take requests.")
        plain = _gauge(
            "groups_plain",
            "Groups that answer without frames, as workers from before: nobody can go on with their replies.",
        )
        ejected = _gauge("groups_ejected", "Groups that take requests and get none for a while, as they failed some.")
        tokens = _gauge(
            "in_flight_tokens", "Tokens of this gateway's requests at a group, prompts and answers so far.", "group"
        )
        rung = _gauge(
            "overload_rung",
            "How far the ladder of overload is climbed: 0 not, 1 short thoughts, 2 none for auto, 3 in turn, 4 shed.",
        )
        shed = CounterMetricFamily(
            "glm_gateway_shed",
            "Requests that were refused for load while groups took others, by the name of the caller's priority class.",
            labels=["model", "priority_class"],
        )
        retries = CounterMetricFamily(
            "glm_gateway_retries",
            "Requests that were to be sent to another group before a byte of their reply, and whether the budget "
            "of retries let them.",
            labels=["model", "allowed"],
        )
        now = time.monotonic()
        for name, model in self._models.items():
            demand, known = model.demand, model.directory.groups
            able = [group.name for group in known if group.takes_requests]
            held.add_metric([name], demand.num_held)
            oldest.add_metric([name], demand.oldest_s)
            running.add_metric([name], sum(model.in_flight.values()))
            groups.add_metric([name], len(known))
            ready.add_metric([name], len(able))
            plain.add_metric([name], sum(model.is_plain(group.name) for group in known))
            ejected.add_metric([name], model.router.ejection.num_out(able, now))
            for group in known:
                tokens.add_metric([name, group.name], model.router.book.account(group.name).held)
            rung.add_metric([name], model.overload.rung)
            for priority_class, num_shed in model.overload.num_shed.items():
                shed.add_metric([name, priority_class], num_shed)
            retries.add_metric([name, "true"], model.retries.num_taken)
            retries.add_metric([name, "false"], model.retries.num_denied)
        yield from (held, oldest, running, groups, ready, plain, ejected, tokens, rung, shed, retries)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"glm_gateway_{name}", text, labels=["model", *labels])

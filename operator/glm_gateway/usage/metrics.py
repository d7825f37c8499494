"""What was used and what limits held up, as metrics: by key, with as many keys as a Prometheus can bear."""

from collections import defaultdict
from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from glm_gateway.limits.tokens import PICO
from glm_gateway.usage.entry import Entry

MAX_KEYS = 100
"""Names of keys that are labels; all that come later are OTHER together."""

OTHER = "other"


class UsageMetrics(Collector):
    """Counts since this process began. Labels of models are those of the configuration: so are entries' models."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._tokens: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._cost: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._refusals: defaultdict[tuple[str, str, str], int] = defaultdict(int)

    def count(self, entry: Entry) -> None:
        """Count a request that was settled, once."""
        model, key = entry.model, self._label_of(entry.key)
        self._requests[model, key, entry.outcome] += 1
        for kind in ("prompt", "cached", "answer", "thinking"):
            self._tokens[model, key, kind] += getattr(entry, kind)
        self._cost[model, key] += entry.cost

    def refuse(self, key: str, limit: str, *, only_counts: bool) -> None:
        """Count a request that a limit has refused, or would have if it did more than count."""
        self._refusals[self._label_of(key), limit, "true" if only_counts else "false"] += 1

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "glm_gateway_key_requests",
            "Requests that have ended, by who asked. Errors are those that failed or were refused.",
            labels=["model", "key", "outcome"],
        )
        for asked, number in self._requests.items():
            requests.add_metric(asked, number)
        tokens = CounterMetricFamily(
            "glm_gateway_tokens",
            "Tokens of requests that have ended. prompt: all of it; cached: the part that was there before.",
            labels=["model", "key", "kind"],
        )
        for labels, number in self._tokens.items():
            tokens.add_metric(labels, number)
        cost = CounterMetricFamily(
            "glm_gateway_cost", "What they cost, in the unit of the prices.", labels=["model", "key"]
        )
        for owner, amount in self._cost.items():
            cost.add_metric(owner, amount / PICO)
        refusals = CounterMetricFamily(
            "glm_gateway_limit_refusals",
            "Requests that a limit of their key or its group has refused; shadow: would have refused.",
            labels=["key", "limit", "shadow"],
        )
        for refusal, number in self._refusals.items():
            refusals.add_metric(refusal, number)
        yield from (requests, tokens, cost, refusals)

    def _label_of(self, key: str) -> str:
        if key not in self._keys:
            if len(self._keys) >= MAX_KEYS:
                return OTHER
            self._keys.add(key)
        return key

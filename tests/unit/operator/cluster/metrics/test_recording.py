"""The recording rules."""

import re

import promql_parser
import pytest

from glm_operator.autoscale.series import SHORT_WINDOW_S, STATUS_WINDOW_S
from glm_operator.cluster.metrics import queries
from glm_operator.cluster.metrics.recording import recording_rules


@pytest.mark.parametrize("rule", recording_rules(), ids=lambda rule: rule["record"])
def test_a_rule_parses_and_keeps_the_labels_that_it_is_read_by(rule: dict[str, str]) -> None:
    promql_parser.parse(rule["expr"])
    assert re.fullmatch(r"glm:[a-z_0-9]+:(increase|samples)[0-9]+[mh]", rule["record"])
    assert rule["expr"].startswith("sum by (namespace, deployment, slo_class, ")


def test_every_series_that_is_read_is_recorded_and_the_other_way_round() -> None:
    asked = [
        *(queries.buckets_query("a", "b", each, is_recorded=True) for each in (SHORT_WINDOW_S, STATUS_WINDOW_S)),
        queries.attained_query("a", "b", is_recorded=True),
        queries.long_query("a", "b", [86400.0], is_recorded=True),
    ]
    read = {name for query in asked for name in re.findall(r"glm:[a-z_0-9]+:[a-z0-9]+", query)}
    recorded = [rule["record"] for rule in recording_rules()]
    assert read == set(recorded)
    assert len(recorded) == len(set(recorded))

"""Promises as the operator makes them are what the worker takes, and both have the same digest of them."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator.api import slo as api
from glm_operator.observe.report import GroupReport, slo_digest
from glm_worker.messages import Slo as WorkerSlo
from glm_worker.server import slo as worker

NAMES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?\Z")
HEADERS = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z"),
        "value": st.from_regex(r"\A[!-~]([ -~]{0,126}[!-~])?\Z"),
    }
)
DURATIONS = st.one_of(
    st.integers(1, 3_600_000).map(lambda n: f"{n}ms"),
    st.integers(1, 3600).map(lambda n: f"{n}s"),
    st.integers(1, 3_599_999).map(lambda n: f"{n / 1000:.3f}s"),
    st.integers(1, 60).map(lambda n: f"{n}m"),
)
PROMISES = st.dictionaries(st.sampled_from(api.SIGNALS), DURATIONS, min_size=1)
MATCHES = st.fixed_dictionaries(
    {"thinking": st.sampled_from(("Enabled", "Disabled", "Any"))}, optional={"header": HEADERS}
)
CLASSES = st.builds(
    lambda name, match, promises, objective: {"name": name, "match": match, "objective": objective, **promises},
    NAMES.filter(lambda name: name != api.DEFAULT_CLASS),
    MATCHES,
    PROMISES,
    st.one_of(st.integers(50, 99), st.floats(50, 99.999)),
)
SPECS = st.lists(CLASSES, max_size=api.MAX_CLASSES, unique_by=lambda each: each["name"])


@settings(deadline=None)  # a busy machine is no fault
@given(SPECS)
def test_whatever_the_api_accepts_the_worker_takes_and_both_have_one_digest(classes: list[dict[str, Any]]) -> None:
    made = api.Slo.model_validate({"classes": classes})
    body = made.for_workers()
    taken = worker.parse_slo(json.dumps(body).encode())
    assert worker.slo_digest(taken) == slo_digest(body)
    assert [each.name for each in taken.classes] == [each.name for each in made.classes]
    assert [each.thresholds_s for each in taken.classes] == [each.thresholds for each in made.classes]


def test_both_have_the_same_limits() -> None:
    assert worker.SIGNALS == api.SIGNALS
    assert (worker.DEFAULT_CLASS, worker.MAX_CLASSES) == (api.DEFAULT_CLASS, api.MAX_CLASSES)


def test_the_largest_promises_fit_the_body_that_is_read() -> None:
    header = {"name": "x" * 64, "value": '"' * 128}
    thresholds = dict.fromkeys(api.SIGNALS, "3599.999s")
    classes = [{"name": f"{n}" * 32, "match": {"header": header}, **thresholds} for n in range(api.MAX_CLASSES)]
    body = json.dumps(api.Slo.model_validate({"classes": classes}).for_workers(), indent=8).encode()
    assert len(body) < worker.MAX_BODY_BYTES / 4
    assert len(worker.parse_slo(body).classes) == api.MAX_CLASSES


def test_the_digest_of_a_report_is_where_the_operator_looks() -> None:
    report = {"state": "serving", "slo_digest": worker.slo_digest(WorkerSlo([]))}
    assert GroupReport.model_validate(report).slo_digest == slo_digest(api.Slo().for_workers())

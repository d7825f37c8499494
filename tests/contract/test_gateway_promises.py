"""A gateway promises a request what its worker will judge it by, and both call the headers of overload the same."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from glm_gateway.ladder import easing
from glm_gateway.ladder.config import SloConfig
from glm_gateway.ladder.promises import class_of, told_headers
from glm_gateway.proxy.heads import MODEL_HEADER
from glm_gateway.surfaces.thinking import default_in
from glm_operator.api.slo import Slo
from glm_worker.server.jobs import context
from glm_worker.server.slo import class_of as class_of_worker
from glm_worker.server.slo import parse_slo
from glm_worker.server.thinking import overload
from glm_worker.server.thinking.resolve import Thinking

VALUES = ["gold", "silver", "Gold"]
matches = st.fixed_dictionaries(
    {},
    optional={
        "thinking": st.sampled_from(["Enabled", "Disabled", "Any"]),
        "header": st.fixed_dictionaries(
            {"name": st.sampled_from(["X-Tier", "x-plan"]), "value": st.sampled_from(VALUES)}
        ),
    },
)
slos = st.lists(matches, max_size=5).map(
    lambda found: Slo.model_validate(
        {"classes": [{"name": f"c{n}", "match": match, "ttft": f"{n + 1}s"} for n, match in enumerate(found)]}
    )
)
asked = st.lists(st.tuples(st.sampled_from([b"x-tier", b"x-plan", b"x-other"]), st.sampled_from(VALUES)), max_size=4)


@given(slos, st.booleans(), asked)
def test_both_find_the_same_class_where_the_mode_is_known(
    slo: Slo, thinks: bool, sent: list[tuple[bytes, str]]
) -> None:
    body = slo.for_workers()
    config = SloConfig.model_validate(body)
    headers = [(name, value.encode()) for name, value in sent]
    mode = "enabled" if thinks else "disabled"
    found = class_of(config, mode=mode, headers=headers)
    through: Any = Headers(raw=told_headers(config, headers))
    of_worker = class_of_worker(parse_slo(msgspec.json.encode(body)).classes, thinking=thinks, headers=through)
    assert (found and found.name) == (of_worker and of_worker.name)


def test_both_call_the_headers_the_same() -> None:
    assert MODEL_HEADER.decode() == context.MODEL_HEADER
    assert easing.MAX_THINKING_HEADER.decode() == overload.MAX_THINKING_HEADER
    assert easing.AUTO_THINKING_HEADER.decode() == overload.AUTO_THINKING_HEADER


def test_a_gateway_reads_the_default_that_a_worker_shows() -> None:
    for enabled, mode in ((True, "enabled"), (False, "disabled")):
        assert default_in(Thinking(enabled=enabled, by="template", budget_tokens=5).header) == mode
        assert default_in(Thinking(enabled=enabled, by="policy").header) == mode
        assert default_in(Thinking(enabled=enabled, by="request").header) is None
    assert default_in(Thinking(enabled=True, by="auto", score=0.7, threshold=0.5).header) is None

import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.trace import Arrival, class_of, read_trace


def test_azures_columns_are_read_from_second_zero() -> None:
    lines = [
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        "2023-11-16 18:17:03.9799600,4808,10",
        "2023-11-16 18:17:04.4799600,3180,8",
    ]
    assert read_trace(lines) == (Arrival(0.0, 4808, 10), Arrival(0.5, 3180, 8))


def test_our_columns_are_read_in_order_of_arrival() -> None:
    lines = ["at_s,prompt_tokens,output_tokens,thinking_tokens", "7.5,10,30,20", "5,10,3,"]
    assert read_trace(lines) == (Arrival(0.0, 10, 3), Arrival(2.5, 10, 30, 20, is_thinking=True))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["a,b"], "it needs at_s or TIMESTAMP"),
        (["at_s,prompt_tokens,output_tokens"], "no requests"),
        (["at_s,prompt_tokens,output_tokens", "x,1,1"], "line 2 of the trace has at_s 'x'"),
        (["at_s,prompt_tokens,output_tokens", "1,0,1"], "line 2 of the trace has '0' tokens"),
        (["at_s,prompt_tokens,output_tokens", "1,1"], "line 2 of the trace has '' tokens"),
        (["TIMESTAMP,ContextTokens,GeneratedTokens", "noon,1,1"], "TIMESTAMP 'noon'"),
        (["at_s,prompt_tokens,output_tokens,thinking_tokens", "1,1,10,11"], "11 thinking tokens of 10 output tokens"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(lines: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_trace(lines)


def test_a_request_belongs_to_the_first_class_that_matches() -> None:
    slo = Slo.model_validate(
        {
            "classes": [
                {"name": "vip", "match": {"header": {"name": "x-tier", "value": "vip"}}, "ttft": "1s"},
                {"name": "deep", "match": {"thinking": "Enabled"}, "ttft": "4s"},
            ]
        }
    )
    assert class_of(slo, Arrival(0.0, 1, 1, 1, is_thinking=True)) == "deep"
    assert class_of(slo, Arrival(0.0, 1, 1)) == "default"

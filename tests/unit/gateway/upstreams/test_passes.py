"""A request says through how many gateways it has passed, and goes through no more than a few."""

import pytest

from glm_gateway.upstreams.passes import MAX_PASSES, circle, num_passes, via

OURS = b"1.1 glm-gateway"


@pytest.mark.parametrize(
    ("values", "num"),
    [
        ([], 0),
        ([b"1.1 nginx, 1.0 squid (3.1)"], 0),
        ([b"glm-gateway", b"", b",,"], 0),
        ([OURS], 1),
        ([b"HTTP/1.1 GLM-gateway (a comment),1.1 nginx", OURS + b"," + OURS], 3),
    ],
)
def test_gateways_are_counted_among_others(values: list[bytes], num: int) -> None:
    headers = [(b"host", b"x"), *((b"via", value) for value in values), (b"x-via", OURS)]
    assert num_passes(headers) == num
    assert num_passes([(b"via", via(headers))]) == num + 1


def test_it_goes_round_no_more_than_a_few_times() -> None:
    headers, num = [(b"via", b"1.1 nginx")], 0
    while circle(headers) is None:
        headers, num = [(b"via", via(headers))], num + 1
    assert num == MAX_PASSES + 1
    failure = circle(headers)
    assert failure is not None
    assert (failure.status, failure.code) == (508, "loop_detected")
    assert f"{MAX_PASSES + 1} gateways" in failure.message

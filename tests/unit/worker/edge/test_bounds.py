"""A body past the bounds of glm_edge is refused as this server refuses: by its field, with a code."""

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.server.edge.bounds import check_json


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"[" * 65 + b"]" * 65, None, "body_too_complex"),
        (b'{"a": 1, "a": 2}', "a", "duplicate_key"),
        (b'{"a": 1e999}', "a", "invalid_value"),
    ],
)
def test_a_body_that_is_not_read_is_a_refusal(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        check_json(body)
    assert (caught.value.param, caught.value.code, caught.value.status) == (param, code, 400)


def test_a_body_within_the_bounds_is_read() -> None:
    check_json(b'{"a": [1, 2]}')

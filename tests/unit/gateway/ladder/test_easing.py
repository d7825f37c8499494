"""Each rung says to a worker what gives way, and to a client on which it was answered."""

import pytest

from glm_gateway.ladder.easing import NO_EASING, Easing
from glm_gateway.ladder.ladder import Rung

SHORT, NONE_AT_AUTO = (b"x-glm-max-thinking", b"512"), (b"x-glm-auto-thinking", b"off")


@pytest.mark.parametrize(
    ("rung", "for_worker", "word"),
    [
        (Rung.SHORT_THOUGHTS, (SHORT,), b"short-thoughts"),
        (Rung.NO_THOUGHTS, (SHORT, NONE_AT_AUTO), b"no-thoughts"),
        (Rung.IN_TURN, (SHORT, NONE_AT_AUTO), b"in-turn"),
        (Rung.SHED, (SHORT, NONE_AT_AUTO), b"shed"),
    ],
)
def test_each_rung_includes_those_before_it(
    rung: Rung, for_worker: tuple[tuple[bytes, bytes], ...], word: bytes
) -> None:
    easing = Easing(rung, 512)
    assert easing.for_worker == for_worker
    assert easing.for_client == ((b"x-glm-overload", word),)


def test_on_the_ground_nothing_is_said() -> None:
    assert (NO_EASING.for_worker, NO_EASING.for_client) == ((), ())

"""A client that did not ask for the usage of a stream does not get its event, and everything else as it came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.upstreams.events import MAX_EVENT_BYTES, Events, TooLong

TEXT = b'data: {"choices":[{"delta":{"content":"\\"usage\\""}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
OTHERS = [
    TEXT,
    b": comment\n\n",
    b'data: {"choices":[],"usage":null}\r\n\r\n',
    b"data: [DONE]\n\n",
    b'data: {"usage": x}\n\n',
]


@given(
    st.lists(st.sampled_from([*OTHERS, USAGE]), max_size=8), st.lists(st.integers(0, 500), max_size=6), st.booleans()
)
def test_all_but_the_usage_passes_wherever_it_is_cut(told: list[bytes], cuts: list[int], tells_usage: bool) -> None:
    stream, events, seen, begin = b"".join(told), Events(tells_usage=tells_usage), b"", 0
    for end in [*sorted(cuts), len(stream)]:
        seen += events.feed(stream[begin:end])
        begin = max(begin, end)
    assert seen + events.end() == b"".join(each for each in told if tells_usage or each != USAGE)


def test_what_ends_without_a_blank_line_is_told_all_the_same() -> None:
    events = Events()
    assert events.feed(b"data: [DONE]\n") == b""
    assert events.end() == b"data: [DONE]\n"


def test_an_event_without_an_end_is_not_kept_forever() -> None:
    with pytest.raises(TooLong):
        Events().feed(b"x" * (MAX_EVENT_BYTES + 1))

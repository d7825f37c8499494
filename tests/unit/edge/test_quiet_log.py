"""Lines about strangers do not fill the log."""

import logging

import pytest

from glm_edge.http.quiet_log import BURST, PERIOD_S, QuietLog


def test_past_a_burst_lines_are_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    quiet = QuietLog(logging.getLogger("quiet"), lambda: now[0])
    for number in range(BURST + 7):
        quiet.warning("bad %d", number)
    assert len(caplog.records) == BURST
    now[0] += PERIOD_S
    quiet.warning("bad again")
    assert [record.getMessage() for record in caplog.records[BURST:]] == [
        "left out 7 lines like the ones before",
        "bad again",
    ]

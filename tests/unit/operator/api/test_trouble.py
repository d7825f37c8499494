"""What a failed request is reported as, and which trouble of several."""

import pytest

from glm_operator.api.reasons import Reason
from glm_operator.api.trouble import Trouble, trouble_of, worst
from glm_operator.errors import Conflict, Denied, ForeignObject, KubeError, LeftOver, Rejected, Unavailable


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ForeignObject("taken"), "NameConflict"),
        (LeftOver("still there"), "GroupsPending"),
        (Rejected("422"), "ApplyRefused"),
        (Conflict("409"), "NameConflict"),
        (Denied("403"), "WriteDenied"),
        (Unavailable("503"), "WriteFailed"),
        (KubeError("what"), "WriteFailed"),
    ],
)
def test_a_failed_request_is_reported_in_the_api_servers_words(error: KubeError, reason: Reason) -> None:
    assert trouble_of("chat", error) == Trouble("chat", reason, str(error))


def test_the_first_of_the_worst_is_reported() -> None:
    fine, first, second = (
        Trouble("chat-g0", "GroupsStarting", "loading"),
        Trouble("chat-g1", "Unschedulable", "no node"),
        Trouble("chat-g2", "Unschedulable", "no node"),
    )
    assert worst([fine, first, second]) is first
    assert (first.is_bad, fine.is_bad) == (True, False)

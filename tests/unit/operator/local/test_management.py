"""What local mode understands of a worker's /group."""

from glm_operator.observe.report import GroupReport

PAGE = {
    "group": "nano-g0",
    "revision": "r",
    "incarnation": "ab",
    "state": "backing_off",
    "generation": None,
    "load": {"done_bytes": 1, "total_bytes": 2},
    "consecutive_start_failures": 2,
    "retry_in_s": 1.5,
    "deaths_while_serving": 1,
    "generations": [
        {
            "id": "ab-1",
            "started_at": 1.0,
            "ready_at": None,
            "ended_at": 2.0,
            "cause": {
                "rank": 1,
                "pod": 0,
                "reason": "failed",
                "exit_code": 1,
                "signal": None,
                "message": "tensor x is missing",
            },
        },
        {"id": "ab-2", "started_at": 3.0, "ready_at": None, "ended_at": None, "cause": None},
    ],
}


def view(**changes: object) -> GroupReport:
    return GroupReport.model_validate({**PAGE, **changes})


def test_the_page_of_a_worker_is_understood() -> None:
    group = view()
    assert group.load is not None
    assert (group.state, group.load.total_bytes, group.deaths_while_serving) == ("backing_off", 2, 1)


def test_the_last_failure_is_told_in_the_workers_words() -> None:
    assert view().failure_text == "rank 1 failed: tensor x is missing"


def test_a_group_that_never_failed_has_no_last_failure() -> None:
    assert view(generations=[]).failure_text == ""


def test_a_failure_of_no_rank_names_none() -> None:
    cause = {"rank": None, "pod": 0, "reason": "server_died", "message": None}
    assert view(generations=[{"id": "x", "cause": cause}]).failure_text == "server_died: no message"

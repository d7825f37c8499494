"""What is known of a server before there is one."""

from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.children import Children
from glm_worker.supervisor.children.server_client import ServerEvents
from glm_worker.supervisor.children.server_keeper import IN_FLIGHT_TOKENS_LIMIT_S, ServerKeeper


def a_keeper() -> ServerKeeper:
    """Return a keeper that was not told to keep a server yet."""
    return ServerKeeper(
        WorkerSettings(model="builtin://glm-nano"),
        Children(),
        "no.module:serves",
        ServerEvents(on_serving=lambda _: None, on_answer=lambda _: None, on_change=lambda: None),
        on_end=lambda _: None,
    )


async def test_tokens_in_flight_are_not_known_without_a_server() -> None:
    assert await a_keeper().in_flight_tokens() is None


def test_a_server_that_hangs_holds_the_group_page_up_for_half_a_second_at_most() -> None:
    assert IN_FLIGHT_TOKENS_LIMIT_S <= 0.5

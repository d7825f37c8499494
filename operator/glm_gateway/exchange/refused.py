"""Why a request ends before it is relayed."""

from collections.abc import Sequence

from glm_edge.errors.failure import Failure


class Gone(Exception):
    """The client went away before its request was whole."""


class Refused(Exception):
    """headers: beside those of the failure."""

    def __init__(self, failure: Failure, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.headers = headers


def not_found(message: str, code: str = "not_found") -> Refused:
    """Return the refusal of what is not there."""
    return Refused(Failure(404, message, "invalid_request_error", code=code))

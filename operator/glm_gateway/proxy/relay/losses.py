"""Why a group that was asked does not write the reply to its end."""

from glm_edge.errors.failure import Failure


class Lost(Exception):
    """The group that writes is gone, silent or broken, or says that another one can go on."""


class Unreached(Lost):
    """The group was asked nothing: it could not be reached, or had left."""


class Declined(Exception):
    """The group did not take the request, and nothing is wrong with it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class TooLong(Exception):
    """The group has counted the prompt, and it is more than may be used."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

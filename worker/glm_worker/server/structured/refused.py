"""Why a schema or a pattern is refused, before anybody knows which field of the request it is."""


class Refused(Exception):
    """A sentence without its subject's name, and the API's code."""

    code = "invalid_schema"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(Refused):
    """It cannot be kept, however large it is."""


class TooLarge(Refused):
    """It may cost too much."""

    code = "schema_too_large"

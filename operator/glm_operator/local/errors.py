"""The one error of local mode."""


class LocalError(Exception):
    """Something a person has to mend. The message says what was wrong, the value and what to do."""

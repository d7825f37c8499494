"""The one shape of everything that can be wrong, or is worth an Event: about what, why, in which words. Pure."""

from dataclasses import dataclass

from glm_operator.api.reasons import Reason, is_bad, rank
from glm_operator.errors import Conflict, Denied, ForeignObject, KubeError, LeftOver, Rejected, Unavailable

_REASONS: tuple[tuple[type[KubeError], Reason], ...] = (
    (ForeignObject, "NameConflict"),
    (LeftOver, "GroupsPending"),
    (Rejected, "ApplyRefused"),
    (Conflict, "NameConflict"),
    (Denied, "WriteDenied"),
    (Unavailable, "WriteFailed"),
)
"""What an error of the API server is reported as; the first that fits."""


@dataclass(frozen=True)
class Trouble:
    """Something to report. about: the object, group or pod; "spec" for the newest spec as a whole."""

    about: str
    reason: Reason
    message: str

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to act: then an Event of it is a warning."""
        return is_bad(self.reason)


def trouble_of(about: str, error: KubeError) -> Trouble:
    """Return what a failed request is reported as, in the API server's words."""
    reason: Reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "WriteFailed")
    return Trouble(about, reason, str(error))


def worst(troubles: list[Trouble]) -> Trouble:
    """Return the first of the worst; there must be one."""
    return min(troubles, key=lambda trouble: rank(trouble.reason))

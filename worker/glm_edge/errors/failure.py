"""An error as all APIs tell it: one value, of which each makes a body of its own shape."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """An error response. retry_after_s: when the client may try again, if it may."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}

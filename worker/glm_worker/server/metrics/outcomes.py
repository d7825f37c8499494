"""How requests end."""

from typing import Literal

Outcome = Literal["finished", "cancelled", "refused", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("finished", "cancelled", "refused", "failed")

"""Where the journal of usage stands, and how long it is kept."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

MIN_RETENTION_DAYS = 62
"""This month and the last one: what budgets and /v1/usage are rebuilt from."""


class UsageConfig(BaseModel):
    """folder: on a volume of this gateway alone. retention_days: older days are deleted.

    max_unwritten: entries in memory while the disk takes none; more are counted as lost, and still in the sums.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    folder: Path
    retention_days: int = Field(default=400, ge=MIN_RETENTION_DAYS, le=36_500, strict=True)
    max_unwritten: int = Field(default=100_000, ge=1, le=10_000_000, strict=True)

"""Where the journal of usage stands, and how long it is kept."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from glm_gateway.part import Part

MIN_RETENTION_DAYS = 62
"""This month and the last one: what budgets and /v1/usage are rebuilt from."""


class Format(StrEnum):
    """Of a file of exports."""

    CSV = "CSV"
    JSONL = "JSONL"


class ExportConfig(Part):
    """A file a day of what was used, in each of the formats."""

    folder: Path
    formats: Annotated[tuple[Format, ...], Field(min_length=1, max_length=2)] = (Format.CSV, Format.JSONL)


class UsageConfig(Part):
    """folder: of this gateway alone, and of all its replicas that share a volume. retention_days: older days are
    deleted. export: null, none is made.

    max_unwritten: entries in memory while the disk takes none; more are counted as lost, and still in the sums.
    """

    folder: Path
    retention_days: int = Field(default=400, ge=MIN_RETENTION_DAYS, le=36_500, strict=True)
    max_unwritten: int = Field(default=100_000, ge=1, le=10_000_000, strict=True)
    export: ExportConfig | None = None

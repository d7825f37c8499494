"""Where the audit log goes, as the gateway's file says it."""

from pathlib import Path

from glm_gateway.part import Part


class AuditConfig(Part):
    """file: that lines are added to; "-": the standard output. requests: whether each request is a line as well."""

    file: Path = Path("-")
    requests: bool = False

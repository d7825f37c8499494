"""Where groups are, as a source says it: EndpointSlices, or a file. Pure."""

from dataclasses import dataclass

MANAGEMENT_PORT = 9090
"""Of workers, where a source does not name it."""


class BadSource(Exception):
    """What a source says cannot be read; what it said before holds on."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One group. host: an address. is_ready, is_leaving: as seen from outside; the group itself knows better.

    speaks_tls: at port; the management port is plain. server_name: that its certificate must say; empty: any.
    """

    name: str
    host: str
    port: int
    management_port: int = MANAGEMENT_PORT
    is_ready: bool = True
    is_leaving: bool = False
    speaks_tls: bool = False
    server_name: str = ""
    deployment: str = ""
    revision: str = ""

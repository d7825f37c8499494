"""What a rank is told about its place in one generation of the group."""

import msgspec


class RankAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's place. Made by the supervisor of its pod from what the leading supervisor announced."""

    rank: int  # in the group
    local_rank: int  # in the pod: also its heartbeat slot and its CUDA device
    world_size: int
    generation: str  # "<incarnation of the leading supervisor>-<n>"; /group shows it to anyone
    secret: str  # by which the ranks of this generation know each other; neither shown nor logged
    meeting_dir: str | None  # folder in which the ranks meet if all are in this pod; None: at leader_host's two ports
    leader_host: str  # name or address of pod 0
    store_port: int  # torch's store of this generation, hosted by rank 0
    channel_port: int  # the step channel of this generation, bound by rank 0
    server_endpoint: str | None  # ipc:// endpoint where the first server waits; rank 0 only (endpoint_of)
    slots_path: str  # file of heartbeat slots of this pod and generation
    num_local_slots: int


def endpoint_of(endpoint: str, server: int) -> str:
    """Return where a server waits for rank 0. endpoint: where the first one of the supervisor's life does."""
    return endpoint if server == 0 else f"{endpoint}.{server}"

"""From a spec to how one copy of its model lies over ranks, pods and GPUs, or to why it cannot. Pure."""

from glm_operator.layout.floor import Floor
from glm_operator.layout.planner import CLAIM_MOUNT, Layout, Memory, Refusal, nearest, plan

__all__ = ["CLAIM_MOUNT", "Floor", "Layout", "Memory", "Refusal", "nearest", "plan"]

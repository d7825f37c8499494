"""Who reads thoughts. Deployment, role of the caller and request must all allow it; none makes up for another."""

from glm_worker.messages import ReasoningPolicy
from glm_worker.server.thinking.wish import ThinkingWish


def visible(policy: ReasoningPolicy, role: str | None, wish: ThinkingWish) -> bool:
    """Tell whether reasoning is sent to the client. A request can hide it, and never show it.

    role: what a trusted proxy says of the caller; None when nobody does, which is no role that a policy can name.
    Hidden reasoning is generated and counted in usage all the same.
    """
    if policy.visibility == "hidden":
        return False
    if policy.visibility == "by_role" and (role is None or role not in policy.visible_to):
        return False
    return wish.shows is not False

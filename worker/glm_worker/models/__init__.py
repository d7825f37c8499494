"""Where checkpoints come from: a model URI becomes a folder on this machine."""

from glm_worker.models.resolve import resolve

__all__ = ["resolve"]

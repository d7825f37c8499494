"""The command line for people: `glm`, also `kubectl glm`. Talks to no GPU and imports no torch."""

from glm_operator.cli.main import app

__all__ = ["app"]

"""`glm replay`: what autoscaling would have done with a trace, decision by decision, and what that would have cost."""

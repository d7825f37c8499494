"""The operator that turns GLMDeployments into groups of inference workers."""

"""The autoscaler: a loop beside the passes that measures deployments, decides, and writes `scale` and nothing else."""

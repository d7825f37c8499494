"""Where the numbers of autoscaling come from: Prometheus, or the workers themselves; both give the same types."""

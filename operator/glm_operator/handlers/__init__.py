"""From triggers to passes: kopf's events and a resync fill a queue, workers of the operator empty it."""

"""`glm-worker check`: a checkpoint computed here, beside the same weights computed by transformers."""

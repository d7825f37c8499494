"""`glm status`: a deployment, live: its groups, latency against promises, decisions, and what limits them."""

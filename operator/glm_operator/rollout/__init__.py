"""What happens to the groups next, and what is kept of accepted specs. Pure."""

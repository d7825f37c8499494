"""Who waits while no group is ready, for how long, and what they are told. Pure."""

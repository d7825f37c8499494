"""The processes below the supervisor: how each starts, is spoken to, and ends."""

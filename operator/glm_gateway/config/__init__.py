"""What a gateway is told, in one file. Pure but for reading it."""

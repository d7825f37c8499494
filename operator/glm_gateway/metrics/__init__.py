"""What a gateway measures."""

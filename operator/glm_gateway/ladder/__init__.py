"""What gives way first under overload. Pure."""

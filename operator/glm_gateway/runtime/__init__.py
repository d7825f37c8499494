"""What runs between the start of a gateway and its end: its models, its ports, its file as it changes, its drain."""

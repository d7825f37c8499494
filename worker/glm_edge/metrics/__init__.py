"""What workers and gateways measure alike: histograms, promises, and the page that tells them. Pure."""

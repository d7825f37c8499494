"""What a gateway knows of the workers' APIs: which path is whose, and what of a body it must read. Pure."""

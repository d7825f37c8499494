"""What must be kept of a request to go on with it elsewhere. Pure."""

"""One pod's first process: keeps the ranks and the server running, together with the group's other pods."""

"""How much a caller may ask for: reserved before the call, settled after it. Pure but for where it is counted."""

"""Who changed what, and who asked for what, as lines of JSON; never a text of a prompt."""

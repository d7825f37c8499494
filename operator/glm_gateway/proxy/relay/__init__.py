"""One request over all the groups that are asked with it: who writes, what its client reads, what it comes to."""

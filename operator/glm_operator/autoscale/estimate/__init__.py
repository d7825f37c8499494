"""Numbers made from samples: rates of counters, percentiles, what a group can do, trends, cold starts. Pure."""

"""What can be seen of simulated groups: series, scrapes, and what goes wrong between. Pure."""

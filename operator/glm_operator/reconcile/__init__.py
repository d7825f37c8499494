"""One pass over one deployment: its dry runs and its writes, through ports that tests can stand in for."""

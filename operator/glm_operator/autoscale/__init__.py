"""From what groups measure to how many there should be. Pure: no clock, no network; one idea a file."""

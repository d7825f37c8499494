"""What a group takes that really serves: its starts, what a request and a token take besides the steps, backlogs."""

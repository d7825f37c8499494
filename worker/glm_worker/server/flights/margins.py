"""What a server that drains may take past its deadline, in seconds: the supervisor waits for it (margins.py there)."""

WRITE_OUT_S = 2.0  # for the last events, once their requests were ended
HANG_UP_S = 4  # for connections to end, once everything was answered

"""How long everything takes at most when a pod stops, in seconds; the grace period of the pod has to be longer.

A pod that leads drains its server (drain_accept_s, drain_deadline_s), has it hang up, and kills what is left. A pod
that follows keeps its ranks until the leader has drained, which may have begun later by readiness_lag_s. What each of
them may take beyond the settings is summed here; tests/contract/test_margins.py holds it against what the operator
renders.
"""

# Of the server, past its deadline
WRITE_OUT_S = 2.0  # for the last events, once their requests were ended
HANG_UP_S = 4  # for connections to end, once everything was answered

# Of the supervisor
DRAINED_S = WRITE_OUT_S + 1  # past its own deadline, for the server to say that it has drained
HUNG_UP_S = HANG_UP_S + 1  # for a drained server to end by itself
LAST_WORD_S = 0.5  # for what an ended server had said to be read
TOLD_S = 0.5  # for followers to be told that they may go
MANAGEMENT_S = 1  # for answers of the management port under way
KILLED_S = 4.0  # for the kernel to end all that is left

DISMISSED_S = DRAINED_S + 3  # past the leader's deadline, for a pod that leaves to be dismissed

LEADER_S = DRAINED_S + TOLD_S + HUNG_UP_S + LAST_WORD_S + MANAGEMENT_S + KILLED_S
"""After drain_accept_s and drain_deadline_s, until the process of a pod that leads has ended."""

FOLLOWER_S = DISMISSED_S + MANAGEMENT_S + KILLED_S
"""After drain_accept_s, readiness_lag_s and drain_deadline_s, until the process of a pod that follows has ended."""

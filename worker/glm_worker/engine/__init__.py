"""What a rank does: step = schedule, run on the device, sample, commit; in lockstep with the ranks of its group."""

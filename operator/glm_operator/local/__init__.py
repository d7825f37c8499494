"""Local mode: the operator's own parse, plan and render, run as processes of this machine instead of pods."""

"""What is wrong with what a simulation was given."""


class InputError(ValueError):
    """A calibration or a trace that cannot be used. The message says where, which value, and what is allowed."""

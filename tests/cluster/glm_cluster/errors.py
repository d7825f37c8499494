"""What can go wrong with the cluster, as one sentence for the person who asked for it."""


class ClusterError(Exception):
    """The message says what is wrong and what to do about it; the command line prints it without a traceback."""


class CommandFailed(ClusterError):
    """A program that we called ended with an error; the message holds the last lines it wrote."""

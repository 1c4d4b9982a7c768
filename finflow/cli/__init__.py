"""The commands: from a command line to a stage or a sweep, and from a failure to one line and an exit code."""

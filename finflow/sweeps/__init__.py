"""Many runs from one command: the plan of jobs, a process for each, and the statistics of the table."""

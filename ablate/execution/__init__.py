"""Running a plan: leases, the one way a stage runs, and the scheduler on this machine."""

"""Running a plan on a SLURM cluster: stages as job arrays, the queue's word and the store's beside each other."""

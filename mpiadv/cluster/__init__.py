"""Jobs of a Slurm cluster: written, handed in, and kept going until the run is done.

Knows neither torch nor MPI: what a job runs are other `mpiadv` commands, as processes.
"""

"""How a program on all ranks ends, as its exit code tells. Knows nothing of the rest."""

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_RESUME_ME = 0, 1, 2, 75

OUTCOME = "MPIADV_OUTCOME"
"""Names a file for rank 0's exit code: a fault-tolerant `mpirun` returns 0 whatever died."""

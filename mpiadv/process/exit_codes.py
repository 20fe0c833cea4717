"""How a program on all ranks ends, as its exit code tells. Knows nothing of the rest."""

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_RESUME_ME = 0, 1, 2, 75
EXIT_STOPPED = 130
"""Ctrl-C ended it at once."""

EXIT_CODE_FILE, NO_EXIT_CODE = "MPIADV_EXIT_CODE_FILE", b"--"
"""Names a file for rank 0's exit code, and what it holds before its end: a fault-tolerant `mpirun`
returns 0 whatever died, and any returns 1 that was ended after its ranks had done their work."""

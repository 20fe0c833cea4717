"""Messages between the trainer and the attackers: over MPI, or in memory for tests."""

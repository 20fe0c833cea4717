"""What is shown of a run's log: a page of figures, or a screen. Knows no torch and no MPI."""

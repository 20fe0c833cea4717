"""mpiadv: asynchronous parallel adversarial training over MPI, with the same bits every time."""

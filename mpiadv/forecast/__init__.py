"""How fast a job will be, and what limits it, before it runs: simulated in virtual time. Pure."""

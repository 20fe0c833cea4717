"""What may be said after each command, and how what may not is refused. Loads no torch, no MPI.

Each command has a module here, whose `read` refuses or answers before the command is loaded.
"""

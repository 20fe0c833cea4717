"""What may be said after each command, and how what may not is refused. Loads no torch, no MPI.

Each command has a `read` here, which refuses or answers before the command is loaded; `every` has
them all.
"""

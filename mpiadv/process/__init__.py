"""One process among others: how it is started, asked to end, heard, and fails. Knows no MPI.

Nothing is imported here: what listens for signals is loaded before anything else.
"""

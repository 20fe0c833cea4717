"""A running job in the terminal: `mpiadv watch`. Reads its log alone; knows no torch and no MPI.

`curves` turns numbers into characters, `picture` a log into a screen or a line, `command` looks
again and again.
"""

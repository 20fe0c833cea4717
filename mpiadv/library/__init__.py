"""mpiadv from Python: the names of `import mpiadv`, each loaded when it is first asked for.

Needs no MPI. `docs/library.md` shows it at work.
"""

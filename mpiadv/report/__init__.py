"""A page of figures from run logs: `mpiadv report`. Knows no torch and no MPI, only the log.

`reading` brings a log into memory, `series` computes what is drawn, `training`, `staleness`,
`seconds`, `snapshots` and `comparison` draw one family of figures each, `page` writes the HTML, and
`command` is the command line.
"""

"""`mpiadv study`: the studies of Bhat, Tsipras and Madry (2019), from runs to tables and figures.

`runs` says which runs a study has, `presets` how large it is, `definition` what else a study brings
and `studies` which there are; one module each describes them. `runner` trains, `score` attacks the
trained networks and `scores` keeps what it found, `folder` knows where everything lies, `results`
writes tables and figures, and `command` is the command line. Only `score`, a process of its own,
needs torch.
"""

"""The log of a run: one HDF5 file, written by one process, readable by others all the while.

Knows no MPI, no torch, and nothing of training beyond the names of its columns.

Each table is one dataset of a compound type, each column's unit or meaning its attribute
`unit:COLUMN`. h5py alone reads it, also while the run goes on (open it anew for each look):

    with h5py.File("log.h5", "r") as log:
        train = pandas.DataFrame(log["train"][:])
        units = dict(log["train"].attrs)

`/train` has one row per training step, `/tickets` one per ticket where a step has several (what
`/train` says of a ticket is of the first then), `/evaluation` one per evaluation and attack,
`/fresh` one per training batch attacked again on the parameters of its own step (as they come in,
not always in order), `/snapshots` the same test images attacked at regular steps,
`/snapshot_originals` those images before the attack, `/events` what happened, `/attackers` one row
per crafting rank each time a run ends: see the row classes. File attributes hold what `create` was
given (configuration, versions, hosts, seeds); group `/resumes` what each `resume` was given.

Why it is written as it is. A kill, or another process's read, may come between any two writes of
the HDF5 library (2.0, earliest format). In the usual layout, chunks of 256 rows, 18 of the 239
states between two writes could not be read and 22 showed rows not yet written; with chunks of 64
rows 622 and 1,358 of 2,651. So here a table is one chunk, allocated as a whole before the file
takes its name. A flush puts rows behind the last one and then counts them, in eight bytes: none of
1,700 states was unreadable, showed an unwritten row or lacked a flushed one. Nor did any of 110
writers killed at random, or any of 950 reads beside one that flushed 250 times a second. A table
that outgrows its chunk is copied into a new file with twice the room, which replaces the old one;
the unused room is a hole and takes no disk. `tests/runlog/test_runlog.py` goes through these
states again.
"""

from mpiadv.runlog.log import RunLog
from mpiadv.runlog.reading import opened, read_attributes, read_table
from mpiadv.runlog.rows import AttackerRow, EvaluationRow
from mpiadv.runlog.trial import TRIAL

__all__ = [
    "TRIAL",
    "AttackerRow",
    "EvaluationRow",
    "RunLog",
    "opened",
    "read_attributes",
    "read_table",
]

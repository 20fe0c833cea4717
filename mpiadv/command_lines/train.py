"""The command line of training."""

from mpiadv.command_lines.described import CONFIGURED, EXIT_CODES, TRUSTED, Described, flag

TRAIN = Described(
    name="",
    example="CONFIG ...",
    summary="train on one rank, or on those of the mpirun or srun around it",
    about="Train a robust classifier. Rank 0 trains, all other ranks craft attacks.",
    epilog=EXIT_CODES,
    words=CONFIGURED,
    options={
        "--resume": flag("go on from the last checkpoint in the run's folder"),
        **TRUSTED,
        "--print-config": flag("print every setting with its value, and stop"),
    },
    elsewhere={
        **dict.fromkeys(("-n", "-np", "--np", "-c"), "mpiadv launch -n 4 CONFIG"),
        "--fault-tolerant": "mpiadv launch -n 4 --fault-tolerant CONFIG",
    },
)

read = TRAIN.read

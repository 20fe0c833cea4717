"""Finished runs whose log has lost something, as `mpiadv.train` finds them."""

from pathlib import Path

import h5py
import pytest
from launching import words_of

import mpiadv
from mpiadv.process.errors import UserError


@pytest.mark.parametrize("table", ["evaluation", "events"])
def test_finished_run_that_does_not_tell_how_it_ended_is_refused(
    table: str, tmp_path: Path
) -> None:
    config = mpiadv.load_config(None, words_of(tmp_path / "run", training__num_steps=3))
    mpiadv.train(config)
    with h5py.File(tmp_path / "run" / "log.h5", "r+") as log:
        log[table].resize(0, axis=0)
    with pytest.raises(UserError, match=r"log\.h5 does not tell how its run ended: it is damaged"):
        mpiadv.train(config, resume=True)

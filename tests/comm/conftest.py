"""In which versions come to attackers, for tests over real MPI."""

import pytest

from mpiadv.comm.shared_memory import DISABLE_SHARING


@pytest.fixture
def num_readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many attackers read versions where they lie: both, rank 1, or none."""
    from mpiadv.comm import settling
    from mpiadv.comm.library import MPI

    if request.param == "as_messages":
        monkeypatch.setenv(DISABLE_SHARING, "1")
    if request.param == "no_memfd":
        monkeypatch.delattr("os.memfd_create", raising=False)
    is_far = request.param == "some_in_place" and MPI.COMM_WORLD.rank == 2
    if is_far or request.param == "out_of_reach":
        monkeypatch.setattr(settling, "attach", lambda address: None)
    return {"in_place": 2, "some_in_place": 1}.get(request.param, 0)

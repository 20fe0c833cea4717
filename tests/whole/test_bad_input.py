"""Whatever is wrong with the input: one clear line, exit code 2 on every rank, nothing touched.

All cases run in the same three processes: importing torch takes longer than all of them together.
"""

import os
import shutil
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

import pytest
from bad_attack_inputs import ATTACK_CASES
from bad_checkpoints import CHECKPOINT_CASES, resumed
from bad_inputs import CASES
from launching import hash_of, launch, train_rows, words_of
from PIL import Image

from mpiadv.contract.tickets import SampleOrder
from mpiadv.process.errors import UserError
from mpiadv.storage.run_folder import RunFolder

SLOWEST_SECONDS = 20.0
"""On a busy machine; the slowest takes a tenth of a second where nothing else runs."""


@pytest.mark.mpi(min_size=3)
def test_bad_input_is_one_line_and_code_2_on_every_rank_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    is_trainer = _is_trainer()
    assert _run(words_of(tmp_path / "finished", **_CHECKPOINTED)) == 0
    capsys.readouterr()
    problems = {}
    with RunFolder(tmp_path / "used", resume=False):
        for name, (words, line) in (CASES | CHECKPOINT_CASES | ATTACK_CASES).items():
            argv = words(tmp_path) if is_trainer else []
            before, began = _contents(tmp_path), time.monotonic()
            code = _run(argv)
            said = capsys.readouterr().err
            seconds = time.monotonic() - began
            expected = f"mpiadv: error: {line}\n" if is_trainer else ""
            is_right = fnmatchcase(said, expected) and said.count("\n") == is_trainer
            if code != 2 or not is_right or _contents(tmp_path) != before:
                problems[name] = f"code {code}, said {said!r}, expected {expected!r}"
            elif seconds > SLOWEST_SECONDS:
                problems[name] = f"took {seconds:.1f} s"
    assert not problems, "\n".join(f"{name}: {problem}" for name, problem in problems.items())


@pytest.mark.mpi(min_size=3)
def test_finished_run_tells_its_result_again_and_changed_code_cannot_resume_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import bad_parts

    words = words_of(tmp_path / "finished", **_CHECKPOINTED)
    assert _run(words) == 0
    told = capsys.readouterr().out
    assert _run([*words, "--resume"]) == 0
    if _is_trainer():
        result = told[told.index("rank  host") :]
        assert capsys.readouterr().out.endswith(f"finished holds a finished run:\n{result}")
        (tmp_path / "finished" / "DONE").unlink()
    monkeypatch.setattr(bad_parts, "small", bad_parts.wide)
    assert _run([*words, "--resume"]) == 2
    if _is_trainer():
        line = "mpiadv: error: the model is not the one that */checkpoint-000000020.pt was trained "
        assert fnmatchcase(
            capsys.readouterr().err, f"{line}with (its '1.weight' is *): set its *\n"
        )


def _damage_newest(run: Path) -> None:
    newest = max((run / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])


def _lose_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def _damage_log(run: Path) -> None:
    os.truncate(run / "log.h5", 3000)


WORSE_FOR_WEAR = {
    "damaged_checkpoint": (
        _damage_newest,
        "checkpoint-000000020.pt is damaged: kept as checkpoint-000000020.pt.damaged-1\n"
        "going on from */checkpoint-000000010.pt",
        "checkpoints/checkpoint-000000020.pt.damaged-1",
    ),
    "no_checkpoint": (
        _lose_checkpoints,
        "there is no checkpoint in */checkpoints: the run begins anew\n"
        "warning: */log.h5 holds 20 steps, and there is no checkpoint to go on from: moved to "
        "log.h5.old-1, a new log is begun",
        "log.h5.old-1",
    ),
    "damaged_log": (
        _damage_log,
        "log.h5 could not be read (*): moved to log.h5.damaged-1, a new log is begun",
        "log.h5.damaged-1",
    ),
    "nothing": (shutil.rmtree, "there is no checkpoint in */checkpoints: the run begins anew", ""),
}


@pytest.mark.mpi(min_size=3)
def test_run_that_lost_files_says_so_keeps_them_and_ends_with_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(words_of(tmp_path / "finished", **_CHECKPOINTED)) == 0
    capsys.readouterr()
    for name, (damage, told, kept) in WORSE_FOR_WEAR.items():
        run = tmp_path / name
        if _is_trainer():
            shutil.copytree(tmp_path / "finished", run)
            (run / "DONE").unlink()
            damage(run)
            before = _contents(run)
        assert _run([*words_of(run, **_CHECKPOINTED), "--resume"]) == 0
        if _is_trainer():
            assert fnmatchcase(capsys.readouterr().out, f"*{told}\n*"), name
            assert hash_of(run) == hash_of(tmp_path / "finished")
            original = kept.rpartition(".")[0]  # its name before it was moved aside
            assert not kept or (run / kept).read_bytes() == before[str(run / original)]


@pytest.mark.mpi(min_size=3)
def test_more_attackers_than_the_window_feeds_are_warned_of_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synchronous = {f"staleness__{name}_staleness": 0 for name in ("max", "final")}
    words = words_of(tmp_path / "run", **synchronous, staleness__publish_every=1)
    assert _run(words) == 0
    if _is_trainer():
        assert (
            "warning: max_staleness=0 lets at most 1 attackers work at once, 2 are here: use "
            "staleness.max_staleness>=1 or at most 2 ranks\n"
        ) in capsys.readouterr().out
        assert len(train_rows(tmp_path / "run")) == 60


@pytest.mark.mpi(min_size=3)
def test_other_data_are_taken_up_where_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(words_of(tmp_path / "finished", **_CHECKPOINTED)) == 0
    changes = {"data__root": "changed", "training__num_steps": 20, "data__allow_changes": "true"}
    words = resumed(**changes)(tmp_path) if _is_trainer() else []
    assert _run(words) == 0
    if _is_trainer():
        said = capsys.readouterr().out
        assert "the train images have changed: the final bits are not those of an undist" in said
        assert "the test images have changed: accuracy before and after cannot be compar" in said


def _pictures(root: Path) -> Path:
    """Pictures of two classes; returns one whose turn comes after training has begun."""
    from mpiadv.data.doubts import NUM_LOOKED_AT
    from mpiadv.data.picture_files import list_pictures
    from mpiadv.data.source import spread_over

    for split, number in (("train", 40), ("test", 4)):
        for name, level in (("cat", 0), ("dog", 100)):
            place = root / split / name
            place.mkdir(parents=True)
            for count in range(number):
                Image.new("RGB", (4, 4), (level + count, 255, count)).save(place / f"{count}.png")
    listing = list_pictures(root / "train")
    looked_at = set(spread_over(len(listing.files), NUM_LOOKED_AT).tolist())
    order = SampleOrder(seed=0, num_samples=len(listing.files), batch_size=4)
    turns = [int(row) for ticket in range(order.batches_per_epoch) for row in order.indices(ticket)]
    return Path(listing.path_of([row for row in turns if row not in looked_at][-1]))


def _cannot_read(path: str, image_size: int | None) -> NoReturn:
    raise UserError(f"image {path} cannot be read") from OSError(5, "Input/output error")


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("trainers", [1, 2])
@pytest.mark.parametrize("fault", ["damaged", "unreadable"])
def test_picture_at_fault_ends_the_run_in_order_and_costs_no_bits(
    fault: str,
    trainers: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mpiadv.data import image_folder, patience

    settings = {"data__name": "image_folder", "model__name": "bad_parts:flat"}
    settings |= {"data__root": tmp_path / "pictures", "training__num_steps": 20}
    settings |= _trained_by(trainers)
    # Few tickets are in work at once: its turn comes only once something is trained.
    settings |= {"staleness__max_staleness": 2, "staleness__final_staleness": 0}
    settings |= {"staleness__publish_every": 1}
    words = words_of(tmp_path / "run", **settings)
    picture, whole = Path(), b""
    if _is_trainer():
        picture = _pictures(tmp_path / "pictures")
        whole = picture.read_bytes()
    assert _run(words_of(tmp_path / "calm", **settings)) == 0
    if fault == "damaged":
        if _is_trainer():
            picture.write_bytes(whole[:-30] + bytes(30))
    else:
        read, names = image_folder.read_picture, _shared(str(picture))
        monkeypatch.setattr(patience, "LONGEST_SECONDS", 0.2)
        monkeypatch.setattr(
            image_folder,
            "read_picture",
            lambda path, size: (_cannot_read if path == names else read)(path, size),
        )
    capsys.readouterr()
    assert _run(words) == (2 if fault == "damaged" else 75)
    told = {
        "damaged": f"cannot decode image {picture}: *: replace or remove the file",
        "unreadable": f"image {picture} could not be read for 0 s (Input/output error)",
    }[fault]
    saved = "checkpoint of step *[1-9]* saved, go on with --resume"
    saved += " data.allow_changes=true" * (fault == "damaged")
    said = capsys.readouterr().err
    assert fnmatchcase(said, f"mpiadv: error: {told}: {saved}\n" if _is_trainer() else "")
    monkeypatch.undo()
    if _is_trainer():
        picture.write_bytes(whole)
    assert _run([*words, "--resume"]) == 0
    if _is_trainer():
        assert hash_of(tmp_path / "run") == hash_of(tmp_path / "calm")


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("trainers", [1, 2])
def test_attack_that_fails_on_its_way_ends_the_run_in_order(
    trainers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"attack__name": "small_attacks:superstitious", "attack__epsilon_warmup_steps": 60}
    settings |= _trained_by(trainers)
    assert _run(words_of(tmp_path / "run", **settings)) == 2
    told = (
        "mpiadv: error: attack 'small_attacks:superstitious': step fails: RuntimeError: not with "
        "this radius (at small_attacks.py:*): checkpoint of step *[1-9]* saved, go on with "
        "--resume\n"
    )
    assert fnmatchcase(capsys.readouterr().err, told if _is_trainer() else "")


def _trained_by(trainers: int) -> dict[str, object]:
    return {"training__trainers": trainers, "training__tickets_per_step": trainers}


def _shared(text: str) -> str:
    from mpi4py import MPI

    return str(MPI.COMM_WORLD.bcast(text))


@pytest.mark.usefixtures("needs_mpirun")
def test_bad_input_that_one_attacker_alone_sees_is_one_line_and_code_2(tmp_path: Path) -> None:
    words = words_of(tmp_path / "run", model__name="bad_parts:raises_on_rank_1")
    completed = launch(words, ranks=2)
    assert completed.returncode == 2
    assert completed.stderr.startswith("mpiadv: error: model 'bad_parts:raises_on_rank_1' cannot ")
    assert "ValueError: no weights in the cupboard of rank 1 (at bad_parts.py:" in completed.stderr
    assert completed.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


_CHECKPOINTED = {"training__num_steps": 20, "checkpoint__every_steps": 10}


def _run(argv: list[str]) -> int:
    # Imported by the ranks alone: pytest itself needs no MPI.
    from mpiadv.run import main

    return main(argv)


def _is_trainer() -> bool:
    from mpi4py import MPI

    return bool(MPI.COMM_WORLD.rank == 0)


def _contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, but for the locks that any run takes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path): path.read_bytes() for path in files}

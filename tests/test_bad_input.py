"""Whatever is wrong with the input: one clear line, exit code 2 on every rank, nothing touched.

All cases run in the same three processes: importing torch takes longer than all of them together.
"""

import os
import shutil
import struct
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

import pytest
from launching import hash_of, launch, train_rows, words_of
from PIL import Image

from mpiadv.process.errors import UserError
from mpiadv.run_folder import RunFolder

Words = Callable[[Path], list[str]]

SLOWEST_SECONDS = 20.0
"""On a busy machine; the slowest takes a tenth of a second where nothing else runs."""


def _with(**settings: Any) -> Words:
    return lambda folder: words_of(folder / "new", **settings)


def _file(text: str | bytes) -> Words:
    """A run with a configuration file of this content."""

    def words(folder: Path) -> list[str]:
        path = folder / "given.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return [str(path), f"output={folder / 'new'}"]

    return words


def _line(*words: str) -> Words:
    return lambda folder: [*words_of(folder / "new"), *words]


def _output(path: str, **settings: Any) -> Words:
    return lambda folder: words_of(folder / path, **settings)


def _resumed(change: Callable[[Path], None] = lambda checkpoint: None, **settings: Any) -> Words:
    """`--resume` of an unfinished run whose newest checkpoint was changed."""

    def words(folder: Path) -> list[str]:
        copy = folder / "unfinished"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / "finished", copy)
        (copy / "DONE").unlink()
        change(max((copy / "checkpoints").glob("*.pt")))
        return [*words_of(copy, **{"training__num_steps": 20, **settings}), "--resume"]

    return words


def _damage_all(checkpoint: Path) -> None:
    for path in checkpoint.parent.glob("*.pt"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def _with_part(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Write a checkpoint anew, whole, with one of its parts changed."""

    def rewrite(checkpoint: Path) -> None:
        import torch

        from mpiadv.checkpoint import save_checkpoint

        payload = torch.load(checkpoint, weights_only=True)
        changed = {**payload, name: change(payload[name])}
        save_checkpoint(checkpoint.parent, int(checkpoint.stem[-9:]), changed, keep=2)

    return rewrite


def _nonsense(name: str, change: Callable[[Any], Any], reason: str) -> tuple[Words, str]:
    return (
        _resumed(_with_part(name, change)),
        f"*/checkpoint-000000020.pt does not hold the state of this run ({reason}): move it *",
    )


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _remove_all(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint.parent)


def _mnist(file: str, num_bytes: int | None = None) -> Words:
    """A run on ten images of MNIST's format, one file of which is cut off, or missing."""

    def words(folder: Path) -> list[str]:
        raw = folder / "MNIST" / "raw"
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(parents=True)
        for prefix in ("train", "t10k"):
            images = struct.pack(">4I", 0x803, 10, 28, 28) + bytes(10 * 28 * 28)
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(images)
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
                struct.pack(">2I", 0x801, 10) + bytes(range(10))
            )
        if num_bytes is None:
            (raw / file).unlink()
        else:
            (raw / file).write_bytes((raw / file).read_bytes()[:num_bytes])
        settings = {"data__name": "mnist", "data__root": folder, "data__download": "false"}
        return words_of(folder / "new", **settings, model__name="mnist")

    return words


def _model(name: str, **settings: Any) -> Words:
    return _with(model__name=name, **settings)


FIRST_IMAGES = "given 2 images of 1x4x4"

CASES: dict[str, tuple[Words, str]] = {
    "unknown_section": (
        _with(trainin__num_steps=3),
        "unknown setting trainin: the nearest known one is training",
    ),
    "abbreviated_option": (
        _line("--resum"),
        "unrecognized arguments: --resum: did you mean --resume? See mpiadv --help",
    ),
    "unknown_key": (
        _with(training__nmu_steps=3),
        "unknown setting training.nmu_steps: the nearest known one is training.num_steps",
    ),
    "section_as_value": (
        lambda folder: ["training=3", f"output={folder / 'new'}"],
        "training=3: expected a section of settings, not one value",
    ),
    "wrong_type": (
        _with(training__num_steps="many"),
        "training.num_steps='many': expected a whole number",
    ),
    "out_of_range": (
        _with(attack__epsilon=-1),
        "attack.epsilon=-1: input should be greater than or equal to 0",
    ),
    "radius_in_bytes": (
        _with(attack__epsilon=8),
        "attack.epsilon=8: pixels are in [[]0, 1]: is 8/255 meant?",
    ),
    "radius_of_all_images": (
        _with(attack__norm="l2", attack__epsilon=4),
        "attack.epsilon=4 reaches every image from every other: those of 16 pixels in *",
    ),
    "log_is_a_folder": (
        _resumed(lambda checkpoint: _a_folder(checkpoint.parent.parent / "log.h5")),
        "*/unfinished/log.h5 is a folder, where a run has its file of that name: move it away, *",
    ),
    "setting_given_twice": (_line("seed=1", "seed=2"), "'seed=1' and 'seed=2' set the same: *"),
    "not_a_number": (
        _with(attack__epsilon=".nan"),
        "attack.epsilon=nan: input should be a finite number",
    ),
    "none_of_the_choices": (
        _with(attack__norm="l1"),
        "attack.norm='l1': input should be 'linf' or 'l2'",
    ),
    "impossible_staleness": (
        _with(staleness__publish_every=100),
        "publish_every=100 cannot hold final_staleness=2: use publish_every <= 3 or "
        "final_staleness >= 99 and max_staleness >= 99",
    ),
    "final_above_max_staleness": (
        _with(staleness__final_staleness=20),
        "final_staleness=20 exceeds max_staleness=16: use final_staleness <= 16 or "
        "max_staleness >= 20",
    ),
    "no_such_file": (
        lambda folder: [str(folder / "none.yaml")],
        "cannot read configuration */none.yaml: No such file or directory",
    ),
    "file_is_a_folder": (
        lambda folder: [str(folder)],
        "cannot read configuration *: Is a directory",
    ),
    "malformed_file": (
        _file("training: [1,\n b: 3"),
        "*/given.yaml is not valid YAML: line 2, column 6: expected ',' or ']', but got *",
    ),
    "file_of_bytes": (_file(b"\xff\xfe\0"), "*/given.yaml is not valid YAML: 'utf-8' codec *"),
    "file_without_settings": (
        _file("- 3"),
        "*/given.yaml: expected a mapping of settings, found list",
    ),
    "override_without_value": (
        _line("seed"),
        "override 'seed': expected key.subkey=value; a configuration file comes first",
    ),
    "override_of_a_value": (
        _line("seed.x=3"),
        "seed={'x': 3}: expected a whole number",
    ),
    "override_malformed": (
        _line("seed=[3"),
        "override 'seed=[3': '[3' is not a valid YAML value: line 1, column 3: *",
    ),
    "unknown_option": (_line("--fast"), "unrecognized arguments: --fast: see mpiadv --help"),
    "no_gpu": (
        _with(training__device="cuda"),
        "training.device=cuda, but no GPU is visible: use training.device=cpu, or check *",
    ),
    "unknown_data_set": (
        _with(data__name="mnits"),
        "unknown data set 'mnits': did you mean 'mnist'? Known: cifar10, *",
    ),
    "missing_data_set": (
        _mnist("train-images-idx3-ubyte"),
        "data set 'mnist' is missing or incomplete in */MNIST/raw: set data.root to *, or allow "
        "the download with data.download=true",
    ),
    "truncated_images": (
        _mnist("train-images-idx3-ubyte", 5000),
        "*/train-images-idx3-ubyte is truncated or corrupt: 5000 bytes, expected 7856: delete *",
    ),
    "truncated_labels": (
        _mnist("t10k-labels-idx1-ubyte", 12),
        "*/t10k-labels-idx1-ubyte is truncated or corrupt: 12 bytes, expected 18: delete *",
    ),
    "label_outside": (
        _with(data__name="bad_parts:labels_outside", data__arguments="{num_classes: 2}"),
        "data set 'bad_parts:labels_outside', split 'train', index 2: label 2 is outside 0..1: "
        "correct the label, or the number of classes (2)",
    ),
    "pixels_outside": (
        _with(data__name="bad_parts:bright_images"),
        "data set 'bad_parts:bright_images', split 'train', index 0: pixels from *, expected "
        "[[]0, 1]: scale them, and leave normalisation to model.mean and model.std",
    ),
    "pixels_not_numbers": (
        _with(data__name="bad_parts:images_not_a_number"),
        "data set 'bad_parts:images_not_a_number', split 'train', index 0: pixels from nan to "
        "nan, expected *",
    ),
    "no_samples": (
        _with(data__name="bad_parts:no_images"),
        "data set 'bad_parts:no_images', split 'train': * with at least one image",
    ),
    "data_set_raises": (
        _with(data__name="bad_parts:unreadable_images"),
        "data set 'bad_parts:unreadable_images', split 'train': OSError: no such tape: train "
        "(at bad_parts.py:*)",
    ),
    "images_that_change": (
        _with(data__name="bad_parts:ImagesAnew"),
        "data set 'bad_parts:ImagesAnew', split 'train', index 0: has another image each time it "
        "is read, expected the same: leave augmentation to data.crop_padding and data.flip, and *",
    ),
    "images_that_differ_between_ranks": (
        _with(data__name="bad_parts:images_of_a_rank"),
        "data set 'bad_parts:images_of_a_rank', split 'train': rank 1 on * has other samples than "
        "rank 0 on *: all need the same, seed whatever is random in its function",
    ),
    "padding_too_large": (
        _with(data__crop_padding=4),
        "data.crop_padding=4 is too much for images of 1x4x4: crops may miss the whole image, use "
        "at most 3",
    ),
    "batch_too_large": (
        _with(data__batch_size=1000),
        "batch_size=1000 does not fit 24 training samples: use 1 <= batch_size <= 24",
    ),
    "wrong_image_size": (
        _model("mnist"),
        "model 'mnist' takes images of 1x28x28, but the data set has images of 1x4x4: set "
        "model.name or data.name so that they match",
    ),
    "wrong_channels": (
        _model("torchvision:resnet18"),
        f"model ResNet, {FIRST_IMAGES}, fails: RuntimeError: *; its first convolution takes 3 *",
    ),
    "unknown_model": (
        _model("digist"),
        "unknown model 'digist': did you mean 'digits'? Known: digits, *",
    ),
    "missing_module": (
        _model("none_such:model"),
        "model 'none_such:model': cannot import 'none_such': ModuleNotFoundError: No module *",
    ),
    "missing_function": (
        _model("bad_parts:none_such"),
        "model 'bad_parts:none_such': module 'bad_parts' has no function 'none_such'",
    ),
    "no_function": (
        _model("bad_parts:NUM_CLASSES"),
        "model 'bad_parts:NUM_CLASSES': module 'bad_parts' has no function 'NUM_CLASSES'",
    ),
    "model_raises_when_built": (
        _model("bad_parts:raises_when_built"),
        "model 'bad_parts:raises_when_built' cannot be built with num_classes=3, image_shape="
        "(1, 4, 4) and arguments {}: ValueError: no weights in the cupboard (at bad_parts.py:*)",
    ),
    "model_raises_in_forward": (
        _model("bad_parts:RaisesInForward"),
        f"model RaisesInForward, {FIRST_IMAGES}, fails: RuntimeError: the cupboard is bare "
        "(at bad_parts.py:*); its first dense layer takes 16 values per image",
    ),
    "model_refuses_arguments": (
        _model("bad_parts:small", model__arguments="{depth: 3}"),
        "model 'bad_parts:small' cannot be built with * and arguments {'depth': 3}: TypeError: *",
    ),
    "model_is_none": (
        _model("bad_parts:returns_a_number"),
        "model 'bad_parts:returns_a_number' returned int, expected a torch.nn.Module",
    ),
    "too_few_logits": (
        _model("bad_parts:too_few_logits"),
        f"model Sequential, {FIRST_IMAGES}, returns a tensor of shape [[]2, 2], expected logits "
        "[[]2, 3]: one row per image, one column per class of the data set",
    ),
    "model_without_parameters": (
        _model("bad_parts:without_parameters"),
        "model Sequential has no parameters: there is nothing to train",
    ),
    "folder_holds_another_run": (
        _output("finished"),
        "*/finished holds another run: add --resume to go on with it, or choose another folder "
        "with output=FOLDER",
    ),
    "folder_in_use": (
        _output("used"),
        "output folder */used is in use by another run (process * on host *): wait for it, stop "
        "it, or choose another folder with output=FOLDER",
    ),
    "folder_is_a_file": (
        _output("finished/log.h5"),
        "output folder */finished/log.h5 is a file: choose another folder with output=FOLDER",
    ),
    "folder_under_a_file": (
        _output("finished/log.h5/new"),
        "cannot create output folder */log.h5/new: Not a directory: choose another folder *",
    ),
    "folder_not_writable": (
        _output("/proc/new"),
        "cannot create output folder /proc/new: *: choose another folder with output=FOLDER",
    ),
    "truncated_checkpoint": (
        _resumed(_damage_all),
        "*/checkpoint-000000020.pt is damaged, its SHA-256 checksum is wrong, nor can the 1 before "
        "it: there is no other checkpoint: restore one from a copy, or start again *",
    ),
    "checkpoint_without_a_part": (
        _resumed(_with_part("versions", lambda part: [1])),
        "*/checkpoint-000000020.pt is no checkpoint of a training run of mpiadv: its versions is "
        "list, expected dict",
    ),
    "checkpoint_whose_settings_are_none": (
        _resumed(_with_part("identity", lambda part: "[[[")),
        "*/checkpoint-000000020.pt is no checkpoint of * its identity is no mapping of settings",
    ),
    "checkpoint_of_another_step": _nonsense(
        "schedule", lambda part: {**part, "last_epoch": 7}, "it is of step 7"
    ),
    "checkpoint_with_half_a_schedule": _nonsense(
        "schedule", lambda part: {"last_epoch": 20}, "schedule lacks *"
    ),
    "checkpoint_with_odd_rates": _nonsense(
        "schedule", lambda part: {**part, "_last_lr": "x"}, "schedule[[]'_last_lr'] is of another *"
    ),
    "checkpoint_with_another_optimiser": _nonsense("optimizer", lambda part: {"state": 1}, "*"),
    "checkpoint_with_an_odd_version": _nonsense(
        "versions", lambda part: {"x": 1}, "'int' object is not subscriptable"
    ),
    "checkpoint_with_a_version_of_later": _nonsense(
        "versions", lambda part: {99: next(iter(part.values()))}, "version 99 is none of a run *"
    ),
    "checkpoint_of_other_data": (
        _resumed(data__root="changed"),
        "*/checkpoint-000000020.pt was trained on other images than those that data.name="
        "bad_parts:images gives now: put them back, or go on with data.allow_changes=true for *",
    ),
    "checkpoint_of_another_configuration": (
        _resumed(optimizer__learning_rate=0.2),
        "*/checkpoint-000000020.pt was trained with optimizer.learning_rate=0.1, this run has "
        "optimizer.learning_rate=0.2: set it back, or start anew with output=FOLDER",
    ),
    "log_of_another_configuration_without_a_checkpoint": (
        _resumed(_remove_all, optimizer__learning_rate=0.2),
        "*/unfinished/log.h5 was trained with optimizer.learning_rate=0.1, this run has "
        "optimizer.learning_rate=0.2: set it back, or start anew with output=FOLDER",
    ),
}
"""What is wrong to the command line, made in a folder, and the line that it gives (fnmatch)."""


@pytest.mark.mpi(min_size=3)
def test_bad_input_is_one_line_and_code_2_on_every_rank_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    is_trainer = _is_trainer()
    assert _run(words_of(tmp_path / "finished", **_CHECKPOINTED)) == 0
    capsys.readouterr()
    problems = {}
    with RunFolder.open(tmp_path / "used", resume=False):
        for name, (words, line) in CASES.items():
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
    words = _resumed(**changes)(tmp_path) if _is_trainer() else []
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
    unseen = next(row for row in range(len(listing.files)) if row not in looked_at)
    return Path(listing.path_of(unseen))


def _cannot_read(path: str, image_size: int | None) -> NoReturn:
    raise UserError(f"image {path} cannot be read") from OSError(5, "Input/output error")


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("fault", ["damaged", "unreadable"])
def test_picture_at_fault_ends_the_run_in_order_and_costs_no_bits(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpiadv.data import image_folder, patience

    settings = {"data__name": "image_folder", "model__name": "bad_parts:flat"}
    settings |= {"data__root": tmp_path / "pictures", "training__num_steps": 20}
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

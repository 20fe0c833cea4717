"""Checkpoints and models on disk: whole or absent, checksummed. Knows nothing of what they hold.

A checkpoint is `checkpoint-000000500.pt`, named by the training steps behind it, with its SHA-256
beside it in `checkpoint-000000500.pt.sha256`, which `sha256sum -c` reads. The checksum is on disk
before the checkpoint takes its name, so a checkpoint that is there is complete at any instant. When
a step is saved again, the checksum file names both contents until the new one is in place.
"""

import hashlib
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch

from mpiadv.process.errors import UserError
from mpiadv.storage.small_files import read_small
from mpiadv.storage.whole_files import TEMPORARY_SUFFIX, unused_name, whole_file, write_text

_NAME = re.compile(r"checkpoint-(\d{9,})\.pt")
_PLAIN = (bool, int, float, str, bytes, torch.Size, torch.dtype, type(None))


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint read back, of `step` training steps, tensors on the CPU.

    `passed_over` are newer ones that are damaged, from the newest on.
    """

    step: int
    path: Path
    payload: dict[str, Any]
    passed_over: tuple[Path, ...] = ()


class DamagedCheckpointError(UserError):
    """The file of a checkpoint is not what was written."""


def save_checkpoint(folder: Path, step: int, payload: dict[str, Any], *, keep: int) -> Path:
    """Write a checkpoint, then remove all but the `keep` newest up to this one.

    `payload` holds tensors, numbers, strings, bytes, None, and dicts, lists and tuples of them.

    Raises:
        TypeError: `payload` holds something that could not be read back; nothing was written.
        OSError: the disk is full, or similar; the checkpoints that were there are untouched.
    """
    _require_plain(payload, "payload")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"checkpoint-{step:09d}.pt"
    replaced = _digests(path) if path.exists() else []
    with whole_file(path) as temporary:
        digest = _save(payload, temporary)  # on disk, as it has to be before its checksum
        _write_digests(path, [*replaced, digest])
    if replaced:
        _write_digests(path, [digest])
    _remove_old(folder, step, keep)
    return path


def is_checkpoint(path: Path) -> bool:
    """Whether a file bears the name of a checkpoint."""
    return _NAME.fullmatch(path.name) is not None


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint of a folder; None where there is none to be seen."""
    try:
        return max(_checkpoints(folder), default=None)
    except OSError:
        return None


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a folder that is not damaged; None where there is none at all.

    Which one a run goes on from costs time and changes no bit.

    Raises:
        UserError: all are damaged, or one may not be read, or is none of ours.
    """
    passed_over: list[Path] = []
    reason = ""
    try:
        checkpoints = _checkpoints(folder)
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None
    for _, path in sorted(checkpoints.items(), reverse=True):
        try:
            return replace(load_checkpoint(path), passed_over=tuple(passed_over))
        except DamagedCheckpointError as error:
            passed_over.append(path)
            reason = reason or str(error)
    if passed_over:
        others = f", nor can the {len(passed_over) - 1} before it" if passed_over[1:] else ""
        raise UserError(
            f"{reason}{others}: there is no other checkpoint: restore one from a copy, or start "
            "again in another folder with output=FOLDER"
        )
    return None


def set_aside(path: Path) -> Path:
    """Give a damaged checkpoint, and its checksum, a name that no checkpoint has.

    Raises:
        OSError: the folder cannot be written to.
    """
    aside = path.rename(unused_name(path, "damaged"))
    with suppress(FileNotFoundError):
        _sidecar(path).rename(_sidecar(aside))
    return aside


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint, tensors on the CPU.

    Raises:
        UserError: there is no such file, or it is no checkpoint of ours.
        DamagedCheckpointError: it fails its checksum, or the disk fails to read it.
    """
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise UserError(f"{path} is no checkpoint: expected a file named checkpoint-NUMBER.pt")
    if path.exists() and not path.is_file():
        raise DamagedCheckpointError(f"{path} is no plain file")
    try:
        with path.open("rb") as file:
            _verify(path, file)
            file.seek(0)
            payload = read_payload(file, path)
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror}") from None
    except OSError as error:
        raise DamagedCheckpointError(f"cannot read checkpoint {path}: {error.strerror}") from None
    return Checkpoint(step=int(name[1]), path=path, payload=payload)


def read_payload(file: IO[bytes], path: Path) -> dict[str, Any]:
    """What a checkpoint holds, tensors on the CPU; `path` is where it lies, or lay.

    Raises:
        UserError: it is no checkpoint of ours.
        OSError: the disk fails to read it.
    """
    try:
        payload = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what torch raises of a file that is none of its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no checkpoint of a training run: {reason}") from None
    if not isinstance(payload, dict):
        kind = type(payload).__name__
        raise UserError(f"{path} is no checkpoint of a training run: it holds {kind}")
    return payload


def save_model(path: Path, state_dict: Mapping[str, Any]) -> None:
    """Write a plain state dict that `torch.load(path, weights_only=True)` reads.

    Raises:
        OSError: the disk is full, or similar; a file that was there is untouched.
    """
    with whole_file(path) as temporary:
        _save(dict(state_dict), temporary)


class _HashingWriter:
    """A file that hashes what passes through it, so that nothing has to be read again.

    `failure` is the first error of the file: torch answers it with one of its own that does not
    tell that the disk is full.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self.failure: OSError | None = None
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        """What torch asks for at its end: the file is brought to disk as a whole."""


def _save(contents: dict[str, Any], path: Path) -> str:
    """Write a file and bring it to disk; its SHA-256."""
    with path.open("wb") as file:
        writer = _HashingWriter(file)
        try:
            torch.save(contents, writer)  # type: ignore[arg-type]
        except RuntimeError:
            if writer.failure is None:
                raise
            raise writer.failure from None
        file.flush()
        os.fsync(file.fileno())
    return writer.digest.hexdigest()


def _verify(path: Path, file: IO[bytes]) -> None:
    known = _digests(path)
    if not known:
        raise DamagedCheckpointError(f"{path} has no checksum ({_sidecar(path).name})")
    if hashlib.file_digest(file, "sha256").hexdigest() not in known:  # type: ignore[arg-type]
        raise DamagedCheckpointError(f"{path} is damaged, its SHA-256 checksum is wrong")


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The complete checkpoints of a folder by step."""
    if not folder.is_dir():
        return {}
    names = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(name[1]): path for name, path in names if name}


def _remove_old(folder: Path, step: int, keep: int) -> None:
    """Remove checkpoints beyond `keep` up to `step`, and what interrupted saves left behind."""
    up_to_this = sorted(other for other in _checkpoints(folder) if other <= step)
    for old in up_to_this[:-keep]:
        (folder / f"checkpoint-{old:09d}.pt").unlink()
    for path in folder.glob(f"checkpoint-*{TEMPORARY_SUFFIX}"):
        path.unlink()
    for path in folder.glob("checkpoint-*.pt.sha256"):
        if not path.with_suffix("").exists():
            path.unlink()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _digests(path: Path) -> list[str]:
    try:
        lines = read_small(_sidecar(path)).decode("ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in lines if line.strip()]


def _write_digests(path: Path, digests: list[str]) -> None:
    write_text(_sidecar(path), "".join(f"{digest}  {path.name}\n" for digest in digests))


def _require_plain(value: Any, where: str) -> None:
    """Refuse on saving what `weights_only` would refuse on loading, days later."""
    if type(value) in _PLAIN or isinstance(value, torch.Tensor):
        return
    if type(value) in (list, tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif type(value) in (dict, OrderedDict, Counter):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    else:
        kind = type(value).__name__
        raise TypeError(f"{where}: a checkpoint cannot hold {kind}: use tensors and plain values")

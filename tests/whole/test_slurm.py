"""The project's batch scripts in a real Slurm: out of time, preempted, on a node that dies.

Starting a job's ranks takes seconds, and Slurm takes its time: so one story is played for all the
tests, with two jobs side by side, and each test looks at one part of what is left of it.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from launching import HERE, hash_alone, hash_of, words_of
from mpi_runner import REPOSITORY
from slurm_cluster import Cluster, slurm

pytestmark = pytest.mark.long

SETTINGS = {
    "model__name": "held_model:held",
    "training__num_steps": 600,
    "checkpoint__every_steps": 10,
}

TWO_NODES = "--nodes=2 --ntasks-per-node=1 --cpus-per-task=1"
CHANGES = {
    "--nodes=1 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=4": TWO_NODES,
    'source "$HOME/mpiadv/.venv/bin/activate"': (
        f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" '
        f"PYTHONPATH={HERE}:{REPOSITORY} OMP_NUM_THREADS=1"
    ),
}
"""What a user changes in the scripts; the rest is used as it is."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run in the cluster, as slow as a test needs it while a file is there."""

    cluster: Cluster
    output: Path

    @property
    def hold(self) -> Path:
        return self.output.with_name(f"hold-{self.output.name}")

    @property
    def settings(self) -> dict[str, object]:
        return {**SETTINGS, "model__arguments": f"{{file: {self.hold}}}"}

    @property
    def words(self) -> list[str]:
        return words_of(self.output, **self.settings)

    def wait_for_checkpoint(self) -> None:
        """Wait until there is one more than there is now."""
        before = self._newest()
        self.cluster.wait_until(
            lambda: self._newest() > before, f"one more checkpoint than {before}", seconds=60
        )

    def _newest(self) -> str:
        return max((path.name for path in self.output.glob("checkpoints/*.pt")), default="")


class Story:
    """Two jobs of one cluster, and what happens to them."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.train = Run(cluster=cluster, output=folder / "train")
        self.chain = Run(cluster=cluster, output=folder / "chain")

    def play(self) -> None:
        """Let everything happen, and wait until all jobs are done."""
        self.train.hold.touch()
        self.chain.hold.touch()
        # Twenty seconds before the limit of a minute, or up to half a minute earlier.
        soon = ("--time=1", "--signal=B:USR1@20")
        self.train_job = self._submit("train", *soon, words=self.train.words)
        self.train.wait_for_checkpoint()
        self._wait_for_requeue(1)
        self._ask("scontrol", "update", f"jobid={self.train_job}", "timelimit=30")
        self.chain_job = self._submit("requeue", words=self.chain.words)
        self._preempt_by_hand()
        self._preempt_both()
        self._lose_a_node()
        self.train.hold.unlink()
        self._wait_for_jobs(0)

    def _preempt_by_hand(self) -> None:
        self.train.wait_for_checkpoint()
        self._ask("scancel", "--batch", "--signal=USR1", self.train_job)
        self._wait_for_requeue(2)

    def _preempt_both(self) -> None:
        """By a job that is more important, which also ends the chain's first one."""
        self.chain.wait_for_checkpoint()
        self.train.wait_for_checkpoint()
        self._ask("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1")
        self._wait_for_requeue(3)
        self.chain.hold.unlink()

    def _lose_a_node(self) -> None:
        self._wait_for_jobs(1)  # the chain has come to its end
        self.train.wait_for_checkpoint()
        self.cluster.kill_node("n2")
        self._wait_for_requeue(4)
        self.cluster.start_node("n2")

    def log(self, pattern: str) -> str:
        """What the jobs said whose logs have such names."""
        return "".join(path.read_text() for path in sorted(self.folder.glob(pattern)))

    def _wait_for_requeue(self, restarts: int) -> None:
        def is_back() -> bool:
            return self.cluster.job(self.train_job)["Restarts"] == str(restarts)

        self.cluster.wait_until(is_back, f"start {restarts + 1}", seconds=60)

    def _wait_for_jobs(self, number: int) -> None:
        def are_left() -> bool:
            return len(self._ask("squeue", "--noheader").splitlines()) == number

        self.cluster.wait_until(are_left, f"only {number} jobs", seconds=90)

    def _ask(self, *command: str) -> str:
        return self.cluster.ask(*command, cwd=self.folder)

    def _submit(self, script: str, *options: str, words: list[str] | None = None) -> str:
        """Submit one of the project's scripts, changed as a user changes it."""
        text = (REPOSITORY / "slurm" / f"{script}.sbatch").read_text()
        changes = {**CHANGES, "configs/mnist.yaml\n": f"{shlex.join(words or [])}\n"}
        for old, new in changes.items():
            # The comments above the settings stay.
            head, first, settings = text.partition("# (1)")
            text = head + first + settings.replace(old, new)
        path = self.folder / f"{script}.sbatch"
        path.write_text(text)
        return self._ask("sbatch", "--parsable", *options, path.name).strip()


@pytest.fixture(scope="module")
def story(needs_mpirun: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with slurm() as cluster:
        story = Story(cluster, tmp_path_factory.mktemp("slurm"))
        try:
            story.play()
        finally:
            print(story.log("*.log"))  # pytest shows it where something fails
        yield story


@pytest.fixture(scope="module")
def undisturbed(story: Story, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the run that nothing holds up or ends."""
    return hash_alone(tmp_path_factory.mktemp("alone") / "run", **story.train.settings)


def test_job_preempted_three_times_and_on_a_dead_node_ends_with_the_undisturbed_bits(
    story: Story, undisturbed: str
) -> None:
    assert hash_of(story.train.output) == undisturbed


def test_every_start_ends_in_the_state_that_slurm_has_for_it(story: Story) -> None:
    states = story.cluster.ended_starts(story.train_job)
    assert states == ["PENDING", "PENDING", "PREEMPTED", "PENDING", "COMPLETED"]
    job = story.cluster.job(story.train_job)
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0")


def test_log_of_all_starts_is_one_file(story: Story) -> None:
    starts = [line for line in story.log("mnist-*.log").splitlines() if ": start " in line]
    assert [line.partition(": start ")[2].split()[0] for line in starts] == [
        "1",
        "2",
        "3",
        "4",
        "5",
    ]


def test_nothing_is_left_of_any_job(story: Story) -> None:
    assert story.cluster.job_processes() == {}


def test_chain_of_jobs_goes_on_where_slurm_cancels_them(story: Story, undisturbed: str) -> None:
    assert story.cluster.ended_starts(story.chain_job) == ["PREEMPTED"]
    assert hash_of(story.chain.output) == undisturbed

"""How large the studies are: smoke, small, paper. Every number of a preset stands here. Pure."""

from collections.abc import Mapping
from typing import Any

from mpiadv.studies.runs import Preset

SYNCHRONOUS = {"max_staleness": 0, "final_staleness": 0, "publish_every": 1}
"""Attacks on the current parameters: what studies that vary nothing of staleness train with."""

_DIGITS: Mapping[str, Any] = {
    "data": {"name": "digits"},
    "model": {"name": "digits"},
    "attack": {"epsilon": 0.15, "num_steps": 8},
    "optimizer": {"name": "adam", "learning_rate": 5e-3},
    "schedule": {"name": "one_cycle"},
    "staleness": SYNCHRONOUS,
    "training": {"num_steps": 60, "threads": 1},
    "evaluation": {"every_steps": 30, "num_samples": 100, "final_samples": 100, "num_steps": 10},
    "checkpoint": {"every_steps": 0},
}

_SHORT_MNIST: Mapping[str, Any] = {  # steps of 0.01 are for linf 0.3, as in the paper
    "data": {"name": "mnist", "root": "data", "batch_size": 64},
    "model": {"name": "mnist", "arguments": {"initialization": "torch", "width": 0.5}},
    "attack": {"epsilon": 0.3, "num_steps": 8},
    "optimizer": {"name": "adam", "learning_rate": 1e-3},
    "schedule": {"name": "one_cycle"},
    "staleness": SYNCHRONOUS,
    "training": {"num_steps": 1500, "precision": "bfloat16", "threads": 1},
    "evaluation": {
        "every_steps": 300, "num_samples": 200, "final_samples": 1000, "step_size": 0.01,
        "precision": "bfloat16",
    },
    "checkpoint": {"every_steps": 300, "keep": 1},
}  # fmt: skip

# As much as two cores do in about two hours; ten epochs, as M+ goes by
# epochs; and a radius that warms up, as methods else stand still at guessing.
_SHORTER_MNIST = {
    **_SHORT_MNIST,
    "data": {**_SHORT_MNIST["data"], "train_samples": 6400},
    "attack": {**_SHORT_MNIST["attack"], "epsilon_warmup_steps": 200},
    "training": {**_SHORT_MNIST["training"], "num_steps": 1000},
}

# configs/mnist_paper.yaml, synchronous where a study does not say otherwise.
_PAPER_MNIST: Mapping[str, Any] = {
    "data": {"name": "mnist", "root": "data", "batch_size": 128, "train_samples": 55000},
    "model": {"name": "mnist"},
    "attack": {"epsilon": 0.3, "num_steps": 8},
    "optimizer": {"name": "adam", "learning_rate": 1e-4},
    "schedule": {"name": "constant"},
    "staleness": SYNCHRONOUS,
    "training": {"num_steps": 60000, "threads": 1},
    "evaluation": {"every_steps": 5000, "num_samples": 1000, "step_size": 0.01},
    "checkpoint": {"every_steps": 1000},
}

# The setting of Wang et al.: 50 epochs of 390 steps, drops after 25 and 40.
_PAPER_CIFAR: Mapping[str, Any] = {
    "data": {
        "name": "cifar10", "root": "data", "batch_size": 128, "crop_padding": 4, "flip": True,
    },
    "model": {
        "name": "preact_resnet18", "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2471, 0.2435, 0.2616],
    },
    "attack": {"epsilon": "8/255", "num_steps": 10, "step_size": "2/255"},
    "optimizer": {
        "name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4,
    },
    "schedule": {"name": "multistep", "milestones": [9750, 15600]},
    "staleness": SYNCHRONOUS,
    "training": {"num_steps": 19500, "precision": "bfloat16", "threads": "auto"},
    "evaluation": {"every_steps": 1950, "num_samples": 1000, "num_steps": 20},
    "checkpoint": {"every_steps": 390},
}  # fmt: skip

# Networks of batch norm: on MNIST a small one of bottleneck blocks.
_DIGITS_NORMED = {**_DIGITS, "model": {"name": "digits", "arguments": {"batch_norm": True}}}
_MNIST_NORMED = {
    **_SHORT_MNIST,
    "model": {
        "name": "resnet", "arguments": {"blocks": [1, 1, 1, 1], "width": 8, "stem": "small"},
    },
}  # fmt: skip

_MIXTURE: Mapping[str, Any] = {"clean_fractions": [0.0, 0.5, 1.0], "paired": True}

_OF_DEAT = (
    "free", "deat", "yopo", "pgd", "friendly", "m_plus", "trades", "m_plus_trades", "mart",
    "m_plus_mart",
)  # fmt: skip
_COMPOSED = ("pgd", "trades", "mart", "m_plus", "friendly", "fast")
_METHODS: Mapping[str, Any] = {
    "methods": [*_OF_DEAT, "fast", "nfgsm", "awp"],
    "refreshed_methods": list(_COMPOSED),
    "seeds": [0, 1, 2],
}
"""Those of the paper, three more, and which are tried on stale attacks."""

_EMULATED: Mapping[str, Any] = {
    "train_ms": 20.0, "craft_ms": 148.0, "num_parameters": 3_300_000,
    "real": False, "real_steps": 30,
    "max_staleness": 16, "final_staleness": 4, "publish_every": 4,
}  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        base=_DIGITS,
        bases={"mixture": _DIGITS_NORMED},
        ranges={
            "power": {"training_steps": [1, 4], "attack_steps": [1, 2, 4], "num_images": 100},
            "transfer": {"training_steps": [1, 4], "num_images": 100},
            "staleness": {
                "staleness": [0, 8],
                "max_staleness": [8],
                "final_staleness": [0],
                "learning_rates": [5e-3],
                "map_staleness": [0, 8],
                "long": False,
                "long_staleness": 8,
                "long_factor": 2,
            },
            "speedup": {
                **_EMULATED,
                "ranks": [1, 2, 3],
                "repeats": 1,
                "num_steps": 60,
                "train_ms": 4.0,
                "craft_ms": 29.6,
                "num_parameters": 10_000,
                "real_steps": 10,
            },
            "methods": {
                "methods": ["pgd", "trades", "m_plus"],
                "refreshed_methods": ["pgd"],
                "seeds": [0, 1],
                "trades_beta": 6.0,
                "num_images": 100,
                "autoattack": False,
                "auto_images": 100,
            },
            "mixture": {
                "clean_fractions": [0.0, 0.5, 1.0],
                "paired": True,
                "seeds": [0],
                "num_images": 100,
            },
            "headline": {
                "num_steps": 40,
                "every_steps": 10,
                "num_images": 100,
                "ranks": 0,
                "emulated_ranks": 3,
                "accuracy": 0.0,
            },
        },
    ),
    "small": Preset(
        base=_SHORT_MNIST,
        bases={"methods": _SHORTER_MNIST, "mixture": _MNIST_NORMED},
        ranges={
            "power": {
                "training_steps": [1, 2, 4, 8, 16, 32],
                "attack_steps": [1, 2, 4, 8, 16, 32],
                "num_images": 1000,
            },
            "transfer": {"training_steps": [1, 4, 8, 32], "num_images": 1000},
            # The least that collapses at this rate and length is the long run's staleness.
            "staleness": {
                "staleness": [0, 1, 2, 4, 8, 16, 32, 64, 256],
                "max_staleness": [16, 64],
                "final_staleness": [0, 2, 8],
                "learning_rates": [3e-4, 1e-3],
                "map_staleness": [0, 4, 16, 64],
                "long": False,
                "long_staleness": 32,
                "long_factor": 5,
            },
            "speedup": {
                **_EMULATED,
                "ranks": [1, 2, 3, 4, 6, 8, 9],
                "repeats": 2,
                "num_steps": 200,
            },
            "methods": {
                **_METHODS,
                "trades_beta": 1.0,
                "num_images": 500,
                "autoattack": True,
                "auto_images": 100,
            },
            "mixture": {
                "clean_fractions": [0.0, 0.5, 1.0],
                "paired": True,
                "seeds": [0, 1, 2],
                "num_images": 500,
            },
            "headline": {
                "num_steps": 1200,
                "every_steps": 100,
                "num_images": 500,
                "ranks": 0,
                "emulated_ranks": 8,
                "accuracy": 0.0,
            },
        },
    ),
    "paper": Preset(
        base=_PAPER_MNIST,
        bases={"methods": _PAPER_CIFAR, "mixture": _PAPER_CIFAR},
        ranges={
            "power": {
                "training_steps": [1, 2, 4, 8, 16, 32, 64, 128],
                "attack_steps": [1, 2, 4, 8, 16, 32, 64, 128],
                "num_images": 10000,
            },
            "transfer": {"training_steps": [1, 4, 8, 128], "num_images": 10000},
            "staleness": {
                "staleness": [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
                "max_staleness": [16, 32, 64],
                "final_staleness": [0, 2, 4, 8],
                "learning_rates": [1e-4, 3e-4, 1e-3],
                "map_staleness": [0, 16, 64, 256],
                "long": False,
                "long_staleness": 64,
                "long_factor": 5,
            },
            "speedup": {
                **_EMULATED,
                "ranks": [1, 2, 3, 4, 5, 6, 7, 8],
                "repeats": 3,
                "num_steps": 300,
            },
            "methods": {
                **_METHODS,
                "methods": [*_METHODS["methods"], "friendly_trades", "awp_trades"],
                "trades_beta": 6.0,
                "num_images": 10000,
                "autoattack": True,
                "auto_images": 10000,
            },
            "mixture": {
                "clean_fractions": [0.0, 0.5, 1.0],
                "paired": True,
                "seeds": [0, 1, 2],
                "num_images": 10000,
            },
            "headline": {
                "num_steps": 60000,
                "every_steps": 1000,
                "num_images": 1000,
                "ranks": 0,
                "emulated_ranks": 8,
                "accuracy": 0.0,
            },
        },
    ),
}
"""Presets by name. A study's ranges may hold numbers, texts, truths, and lists of the first two."""

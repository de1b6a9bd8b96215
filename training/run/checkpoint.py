"""What a run needs in order to go on: saved whole or not at all, without pickle, for any number of processes.

A run folder holds ``state/000200/``: tensors as safetensors, in parts where several processes share them, and
``state.json``, all the rest. ``state/latest.json`` points to it and is written last, so that a kill at any moment
leaves the state before or the one after. States of random generators are not in it: what a step draws depends on seed
and step alone (`training.run.runtime.step_generator`), and so does the learning rate.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


logger = logging.getLogger(__name__)
STATE_FOLDER = "state"
FACTS = "state.json"
POINTER = "latest.json"


def write_whole(path: Path, facts: Any) -> None:
    """Write a small JSON file so that there is always the old one or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(facts))
    os.replace(fresh, path)


def point_to(folder: Path, step: int) -> None:
    """Make the state of ``step`` the one a run goes on from, and remove all others."""
    states, name = folder / STATE_FOLDER, state_name(step)
    write_whole(states / POINTER, {"state": name})
    for other in states.iterdir():
        if other.name not in (name, POINTER):
            shutil.rmtree(other, ignore_errors=True)


def state_name(step: int) -> str:
    """Name of the folder of the state of ``step``."""
    return f"{step:06d}"


def find_state(folder: Path) -> Path | None:
    """The folder of the last whole state of a run, if there is one.

    Raises:
        ValueError: if the state is of a version before this one.
    """
    states = folder / STATE_FOLDER
    if (states / "step.json").exists():
        raise ValueError(
            f"output_dir: the state in {folder} is of an earlier version and cannot be gone on from; start from its "
            "pipeline with init_from, in another output_dir"
        )
    pointer = states / POINTER
    return states / str(json.loads(pointer.read_text())["state"]) if pointer.exists() else None


def step_of(state: Path) -> int:
    """The step that a state folder goes on with."""
    return int(json.loads((state / FACTS).read_text())["step"])


@dataclass
class RunState:
    """All that a run has learnt so far, and its folder.

    Attributes:
        config: the stage's configuration, with ``output_dir``.
        models: networks by name, as they are before they are wrapped for several processes; what does not learn is not
            kept.
        optimizers: of the models, under the same names.
        average: averaged weights, if any, of the parameters of the first model that learn.
        schedules: what the learning rates follow.
    """

    accelerator: Accelerator
    config: Any
    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    average: EMAModel
    schedules: Sequence[LambdaLR] = field(default_factory=list)
    learned: dict[str, dict[str, nn.Parameter]] = field(init=False)
    """The parameters that learn, by model and name: a sharded model shows others while it is gathered."""

    def __post_init__(self) -> None:
        self.learned = {
            name: {key: p for key, p in model.named_parameters() if p.requires_grad}
            for name, model in self.models.items()
        }

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.output_dir)

    def weights(self) -> dict[str, Tensor]:
        """Present weights and their averages, as they are called in a state."""
        found = {
            f"model/{name}/{key}": p.detach() for name, learned in self.learned.items() for key, p in learned.items()
        }
        return found | {f"average/{name}": shadow for name, shadow in self.averages().items()}

    def averages(self) -> dict[str, Tensor]:
        """The averaged weights of the first model, by name."""
        names = next(iter(self.learned.values()))
        return dict(zip(names, self.average.shadow_params, strict=True))

    def memories(self) -> dict[str, Tensor]:
        """What the optimizers remember of each parameter."""
        return {
            f"optimizer/{name}/{key}/{entry}": value
            for name, optimizer in self.optimizers.items()
            for key, p in self.learned[name].items()
            for entry, value in optimizer.state.get(p, {}).items()
        }

    def save(self, step: int) -> None:
        """Write the state of ``step``; only when it is whole it takes the place of the one before.

        Raises:
            OSError: if the disk is full or refuses; what was half written is gone, the last whole state is intact.
        """
        target = self.folder / STATE_FOLDER / state_name(step)
        if self.accelerator.is_main_process:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            with self._collective() as options:
                writer = dcp.HuggingFaceStorageWriter(str(target), save_distributed=True)
                dcp.save(self.weights() | self.memories(), storage_writer=writer, **options)
            if self.accelerator.is_main_process:
                (target / FACTS).write_text(json.dumps(self._facts(step)))
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:  # all words for a full disk
            shutil.rmtree(target, ignore_errors=True)
            raise OSError(
                f"{self.folder}: the state of step {step} cannot be written ({error}); the last whole state is intact."
                " Make room and run the same command again"
            ) from error
        self.accelerator.wait_for_everyone()  # each process has written its part: only then may the pointer move
        if self.accelerator.is_main_process:
            point_to(self.folder, step)
        self.accelerator.wait_for_everyone()

    def load(self) -> int:
        """Restore the last whole state; returns the step to go on from, 0 where there is nothing to resume.

        Raises:
            ValueError: if the state is of another run; nothing is changed then, and the difference is named.
        """
        source = find_state(self.folder)
        if source is None:
            return 0
        facts = json.loads((source / FACTS).read_text())
        reader = dcp.HuggingFaceStorageReader(str(source))
        sizes = {name: tuple(entry.size) for name, entry in reader.read_metadata().state_dict_metadata.items()}
        step, changed = int(facts["step"]), self._changes(facts["config"])
        self._require_fit(facts, sizes, changed)
        tensors = self.weights() | self._restore_memories(sizes)
        with self._collective() as options:
            dcp.load(tensors, storage_reader=reader, **options)
        self.average.optimization_step = int(facts["average_steps"])
        for schedule in self.schedules:
            set_schedule(schedule, step)
        logger.info("resumed at step %d%s", step, f"; changed: {', '.join(changed)}" if changed else "")
        return step

    @contextmanager
    def _collective(self) -> Iterator[dict[str, bool]]:
        """How to call torch's checkpoints: together, or alone without its word about that."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield {"no_dist": self.accelerator.num_processes == 1}

    def _facts(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "config": asdict(self.config),
            "optimizers": self._kinds(),
            "average_steps": self.average.optimization_step,
        }

    def _kinds(self) -> dict[str, str]:
        return {name: type(optimizer).__name__ for name, optimizer in self.optimizers.items()}

    def _changes(self, before: dict[str, Any]) -> list[str]:
        """How the configuration differs from the one ``before``."""
        now = json.loads(json.dumps(asdict(self.config)))
        names = [name for name in (now | before) if now.get(name) != before.get(name) and name != "output_dir"]
        return [f"{name} was {before.get(name)}, is {now.get(name)}" for name in names]

    def _require_fit(self, facts: dict[str, Any], sizes: dict[str, tuple[int, ...]], changed: list[str]) -> None:
        here = {name: tuple(tensor.shape) for name, tensor in self.weights().items()}
        there = {name: size for name, size in sizes.items() if not name.startswith("optimizer/")}
        wrong = [name for name in here | there if here.get(name) != there.get(name)]
        if wrong or facts["optimizers"] != self._kinds():
            first = f"{wrong[0]} was {there.get(wrong[0])}, is {here.get(wrong[0])}" if wrong else "another optimizer"
            raise ValueError(
                f"output_dir: the state in {self.folder} does not fit this run ({'; '.join(changed) or first}); give "
                "it the old values again, or another output_dir"
            )

    def _restore_memories(self, sizes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Make room in the optimizers for all that the state remembers; returns it by its names in the state."""
        found = {}
        for name, optimizer in self.optimizers.items():
            optimizer.state.clear()
            for key, p in self.learned[name].items():
                prefix = f"optimizer/{name}/{key}/"
                for full in (full for full in sizes if full.startswith(prefix)):
                    room = torch.zeros_like(p) if sizes[full] == tuple(p.shape) else torch.zeros(sizes[full])
                    optimizer.state[p][full.removeprefix(prefix)] = found[full] = room.detach()
        return found


def set_schedule(schedule: LambdaLR, step: int) -> None:
    """Set the learning rates of a schedule to those of ``step``: they are of the configuration, not of the state."""
    schedule.last_epoch = step
    for group, base, factor in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(step)

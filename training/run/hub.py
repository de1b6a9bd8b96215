"""A run and the Hub: every save becomes a commit, and a run goes on from there on any machine.

A repository of a run holds at every commit what was trained (a pipeline with its code and card, a LoRA adapter, or a
VAE) and, in ``training_state/``, what the next step needs. With ``--push_to_hub --resume_from_hub`` the same command
may be started anywhere, any number of times.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from huggingface_hub import snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from pipelines.hub.client import clear_errors, link_or_copy, open_repository, push_folder
from pipelines.hub.repository import complete_repository
from pipelines.record import run_record
from training.run.checkpoint import FACTS, STATE_FOLDER, find_state, point_to, state_name, step_of


logger = logging.getLogger(__name__)
STATE_IN_REPOSITORY = "training_state"
RUN_FILES = ("config.yaml", "log.jsonl")
TRAINED = ("pipeline", "lora", "vae")
"""Folders of a run that hold what it trains; a run has one of them."""


@dataclass(kw_only=True)
class HubConfig:
    """Where a run is pushed to and resumed from; the part of a stage's configuration that all stages share."""

    push_to_hub: bool = field(default=False, metadata={"help": "Push what is saved to the Hub, at every save."})
    hub_model_id: str = field(default="", metadata={"help": "Repository to push to and to resume from."})
    hub_private: bool = field(default=False, metadata={"help": "Make the repository private if it is made."})
    resume_from_hub: bool = field(
        default=False, metadata={"help": "Go on from the repository's state where output_dir has none."}
    )

    def __post_init__(self) -> None:
        for name in ("push_to_hub", "resume_from_hub"):
            if vars(self)[name] and not self.hub_model_id:
                raise ValueError(f"hub_model_id: --{name} needs the repository, e.g. --hub_model_id you/ardrag-tiny")


def start_on_hub(config: HubConfig, accelerator: Accelerator, folder: Path) -> None:
    """Before a run: see that its repository can be written to, and fetch its state if it is to go on from there.

    Raises:
        ValueError: if the Hub refuses or cannot be reached.
    """
    if accelerator.is_local_main_process:
        if config.push_to_hub and accelerator.is_main_process:
            config.hub_model_id = open_repository(config.hub_model_id, config.hub_private or None)
        if config.resume_from_hub and find_state(folder) is None:
            fetch_state(config.hub_model_id, folder)
    accelerator.wait_for_everyone()


def fetch_state(repo_id: str, folder: Path) -> None:
    """Download the state of the newest commit of ``repo_id`` into the run folder; a repository without one is new."""
    patterns = [f"{STATE_IN_REPOSITORY}/{name}" for name in ("*.json", "*.safetensors", *RUN_FILES)]
    with clear_errors(f"hub: {repo_id}"):
        try:
            source = Path(snapshot_download(repo_id, allow_patterns=patterns)) / STATE_IN_REPOSITORY
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"hub_model_id: {repo_id} is not there to resume from; check it, or leave out resume_from_hub"
            ) from error
    if (source / "step.json").is_file():
        raise ValueError(
            f"hub_model_id: the state in {repo_id} is of an earlier version and cannot be gone on from; "
            "start from its pipeline with init_from, and push to another repository"
        )
    if not (source / FACTS).is_file():
        logger.info("%s has no state yet: the run begins at its beginning", repo_id)
        return
    step = step_of(source)
    target = folder / STATE_FOLDER / state_name(step)
    target.mkdir(parents=True, exist_ok=True)
    for path in [source / FACTS, *source.glob("*.safetensors")]:
        shutil.copyfile(path, target / path.name)
    shutil.copyfile(source / "log.jsonl", folder / "log.jsonl")
    point_to(folder, step)
    logger.info("resumed %s at step %d", repo_id, step)


def push_run(accelerator: Accelerator, config: Any, stage: str, step: int) -> None:
    """Push what a run has saved as one commit, if its configuration says so; the main process does.

    Args:
        config: the stage's configuration.
        stage: dotted name of the stage's module, for the card.
        step: how far the run is. Before its end a push that fails is reported and the run goes on.

    Raises:
        ValueError: at the end of the run, if the Hub refuses or cannot be reached; what was to be pushed is kept.
    """
    if not config.push_to_hub or not accelerator.is_main_process:
        return
    try:
        parcel = pack_parcel(Path(config.output_dir))
        complete_repository(parcel, config.hub_model_id, run_facts(config, stage, step))
        push_folder(parcel, config.hub_model_id, commit_message=f"Step {step}")
    except ValueError as error:
        if step >= config.steps:
            raise
        logger.warning("step %d is not on the Hub, the run goes on: %s", step, error)


def pack_parcel(folder: Path) -> Path:
    """Lay out a run's repository in ``folder/hub``, without a second copy of the weights where the disk can do so."""
    parcel = folder / "hub"
    (trained,) = (folder / name for name in TRAINED if (folder / name).is_dir())
    shutil.rmtree(parcel, ignore_errors=True)
    shutil.copytree(trained, parcel, copy_function=link_or_copy)
    state = find_state(folder)
    assert state is not None, "what is pushed has been saved"
    shutil.copytree(state, parcel / STATE_IN_REPOSITORY, copy_function=link_or_copy)
    for name in RUN_FILES:
        shutil.copyfile(folder / name, parcel / STATE_IN_REPOSITORY / name)
    return parcel


def run_facts(config: Any, stage: str, step: int) -> dict[str, Any]:
    """What the card of a run's repository says about it; see `pipelines.hub.model_card`."""
    options, record = vars(config), run_record(stage)
    part = f"{stage.rpartition('.')[2]}, {step} of {config.steps} steps"
    return {
        "stages": [{"part": part, "command": record["command"]}],
        "record": record,
        "data": [*options.get("data", []), *([options["prompts"]] if "prompts" in options else [])],
        "base_model": options.get("init_from", ""),
        "licence_notes": licence_notes(options),
    }


def licence_notes(options: dict[str, Any]) -> list[str]:
    """What a model owes to what it was trained with."""
    if str(options.get("tracker", "")).startswith("cotracker"):
        return ["The reward was CoTracker3 (CC-BY-NC 4.0): no commercial use of what it taught."]
    return []

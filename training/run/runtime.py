"""Tools that every stage's loop uses: run folder, log, curves, seeds, checkpoints. A toolbox, not a framework."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import signal
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from PIL import Image
from torch.autograd.graph import increment_version

from ardrag.rollout import seeded_generator
from training.rollouts.tokens import add_encoders
from training.run.checkpoint import write_whole
from training.run.config import config_lines


logger = logging.getLogger(__name__)
EXPORTED = "exported.json"


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """Random generator of one training step, so that a resumed run draws what the uninterrupted one would."""
    return seeded_generator(seed, step, rank)


def clip_generators(accelerator: Accelerator, config: Any, step: int, part: int) -> list[torch.Generator]:
    """One generator for each clip of a batch, by the clip's number among all of an update.

    ``part`` counts the batches that a process accumulates. The clips of an update are the same however many processes
    share it, in batches of whatever size.
    """
    first = (part * accelerator.num_processes + accelerator.process_index) * config.batch_size
    return [step_generator(config.seed, step, first + clip) for clip in range(config.batch_size)]


class Learner(torch.nn.Module):
    """A transformer as what learns.

    Wrapping this for training precision and several processes leaves the transformer itself as it is, so that rollouts
    run in full precision and outside of any synchronisation.
    """

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """As the transformer's own."""
        return self.transformer(*inputs, **options)


def read_rows(path: Path) -> list[dict[str, float]]:
    """All rows of a ``log.jsonl``, oldest first; a last line that a crash cut off is none."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line]


class RunLog:
    """Append-only ``log.jsonl`` of a run, with loss curves drawn from it.

    On resume, lines at or after the resumed step are dropped, so that the file tells one story.
    """

    def __init__(self, folder: Path, first_step: int = 0, writes: bool = True) -> None:
        self.path = folder / "log.jsonl"
        self.report: Callable[[dict[str, float], int], None] = lambda row, step: None
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in self.rows() if row["step"] < first_step]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def rows(self) -> list[dict[str, float]]:
        """See `read_rows`."""
        return read_rows(self.path)

    def write(self, step: int, **metrics: float) -> None:
        """Append one row and tell the console."""
        row = {"step": step, **{name: round(float(value), 6) for name, value in metrics.items()}}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.report(row, step)
        logger.info("step %d  %s", step, "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step"))

    def plot(self) -> Path:
        """Draw every metric's curve, as logged and smoothed, into ``curves.png`` beside the log."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        series: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in self.rows():
            for name, value in row.items():
                if name != "step":
                    series[name].append((row["step"], value))
        count = max(len(series), 1)
        figure, axes = pyplot.subplots(count, 1, figsize=(7, 2.2 * count), squeeze=False)
        for axis, (name, points) in zip(axes[:, 0], series.items(), strict=False):
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, linewidth=0.7, alpha=0.4)
            axis.plot(steps, smoothed(values), linewidth=1.4)
            axis.set_title(name, fontsize=9)
            axis.grid(alpha=0.3)
        figure.tight_layout()
        target = self.path.with_name("curves.png")
        figure.savefig(target, dpi=80)
        pyplot.close(figure)
        return target


def start_log(accelerator: Accelerator, config: Any, first_step: int) -> RunLog:
    """The log of a run that goes on from ``first_step``, with its configuration beside it.

    To be called once the state has been read: then both files are of this run and no other.
    """
    folder, writes = Path(config.output_dir), accelerator.is_main_process
    log = RunLog(folder, first_step, writes)
    if writes:
        (folder / "config.yaml").write_text(config_lines(config))
    if accelerator.log_with:
        accelerator.init_trackers("ardrag", {name: str(value) for name, value in asdict(config).items()})
        log.report = accelerator.log
        for tracker in accelerator.trackers:
            atexit.register(tracker.finish)
    return log


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average that starts at the first value and is not biased towards it."""
    total = count = 0.0
    found = []
    for value in values:
        total, count = weight * total + (1 - weight) * value, weight * count + (1 - weight)
        found.append(total / count)
    return found


@contextmanager
def averaged(ema: EMAModel, parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """Within, ``parameters`` hold their averages; afterwards their own values again.

    diffusers writes them without a trace, and what is remembered of the others (`ardrag.convolutions`) would stay.
    """
    ema.store(parameters)
    ema.copy_to(parameters)
    increment_version(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)
        increment_version(parameters)


LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]


def add_lora(transformer: Any, rank: int, alpha: int) -> None:
    """Give ``transformer`` a LoRA adapter on attention and feed-forward layers; it alone is trainable then."""
    from peft import LoraConfig

    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=LORA_TARGETS))


def let_learn(transformer: Any, config: Any) -> None:
    """Unfreeze ``transformer``, or give it an adapter of ``lora_rank`` that learns instead."""
    if config.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if config.lora_rank:
        add_lora(transformer, config.lora_rank, alpha=config.lora_rank)
    else:
        transformer.requires_grad_(True)


AVERAGE = "average"


def add_average(transformer: Any) -> None:
    """Give ``transformer`` a second adapter, its average: it begins as the first and does not learn, but answers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        transformer.add_adapter(transformer.peft_config["default"], adapter_name=AVERAGE)
    transformer.set_adapter("default")
    learned = [p for p in transformer.parameters() if p.requires_grad]
    for own, average in zip(learned, average_weights(transformer), strict=True):
        average.data.copy_(own.data)


def average_weights(transformer: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters of the second adapter, in the order of the first one's."""
    return [p for name, p in transformer.named_parameters() if f".{AVERAGE}." in name]


def halve_base(transformer: torch.nn.Module) -> None:
    """Hold the matrices that have adapters in bfloat16, in which autocast computes with them anyway."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for part in transformer.modules():
        if isinstance(part, BaseTunerLayer):
            part.get_base_layer().to(torch.bfloat16)


class Reference:
    """A model with weights other than those that learn: one of its own, or the one that learns without its adapter.

    Args:
        model: frozen as it is, or with an adapter that learns.
        frozen: which of the two.
        adapter: instead of none, this one of its adapters.
    """

    def __init__(self, model: Any, frozen: bool, adapter: str = "") -> None:
        self._model, self._adapter = model, adapter
        self.own = model if frozen else None
        """The model, where it is one of its own."""

    @contextmanager
    def model(self) -> Iterator[Any]:
        """Within, the model with these weights."""
        if self.own is not None:
            yield self.own
            return
        learns = [(p, p.requires_grad) for p in self._model.parameters()]
        if self._adapter:
            self._model.set_adapter(self._adapter)
        else:
            self._model.disable_adapters()
        try:
            yield self._model
        finally:
            self._model.enable_adapters()
            self._model.set_adapter("default")
            for p, learned in learns:  # what is switched on is made to learn
                p.requires_grad_(learned)


def save_lora(pipeline: Any, folder: Path) -> None:
    """Write the adapter as diffusers has it for Wan: ``pipe.load_lora_weights(folder)`` finds keys, rank and alpha."""
    from peft import get_peft_model_state_dict

    transformer = pipeline.transformer
    pipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
    )


@contextmanager
def swapped_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``folder`` once all of it is written."""
    fresh, old = (folder.with_name(folder.name + end) for end in (".new", ".old"))
    shutil.rmtree(fresh, ignore_errors=True)
    yield fresh
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def exported_step(folder: Path) -> int:
    """The step whose weights the export of a run folder holds, 0 if there is none."""
    path = folder / EXPORTED
    return int(json.loads(path.read_text())["step"]) if path.exists() else 0


def mark_exported(folder: Path, step: int) -> None:
    """Note that the export of a run folder is whole, and of ``step``."""
    write_whole(folder / EXPORTED, {"step": step})


def save_trained(pipeline: Any, folder: Path, lora: bool, source: str = "") -> None:
    """Write what was trained: the adapter to ``folder/lora``, or the whole pipeline to ``folder/pipeline``.

    ``source`` names the pipeline that it began as, whose encoders it gets where it was trained without.
    """
    with swapped_folder(folder / ("lora" if lora else "pipeline")) as target:
        if lora:
            save_lora(pipeline, target)
        else:
            pipeline.save_pretrained(target)
            if pipeline.text_encoder is None:
                add_encoders(target, source)


def run_stage(stage: Callable[[Any], None], config: Any) -> None:
    """Call the ``main`` of a stage; where its other processes die, or it is told to stop, it ends with one clear line.

    Raises:
        SystemExit: then, with the line.
    """
    line = f"{config.output_dir}: the run has stopped (%s); its last whole state is intact, the same command goes on"

    def stopped(why: str) -> SystemExit:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is on its way out; told again there, it would say so again
        return SystemExit(line % why)

    def stop(*_: Any) -> None:
        raise stopped("it was told to, or another of its processes has ended")

    signal.signal(signal.SIGTERM, stop)
    try:
        stage(config)
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise stopped("another of its processes has ended") from None


def leave() -> None:
    """End a process that is one of several and has done its work; nothing happens where it is alone. Call it last.

    The threads of gloo let go of their tensors whenever they come to it. Where Python is being taken down then, they
    abort the process (``terminate called without an active exception``) and with it a job that has succeeded. Nothing
    that torch offers waits for them, so Python is not taken down.
    """
    if not dist.is_initialized():
        return
    dist.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "NCCL communicator was aborted",
    "remote process exited",
)
"""How torch says that a process does not answer any more."""


def require_finite(loss: torch.Tensor, step: int) -> None:
    """Stop the run on a NaN or infinite loss; the last saved state stays as it is.

    Raises:
        FloatingPointError: with the step, and what to try.
    """
    if not torch.isfinite(loss).all():
        raise FloatingPointError(
            f"loss is {loss.item()} at step {step}; the last saved state is intact, resume with a lower learning rate"
        )


def contact_sheet(rows: list[npt.NDArray[Any]], path: Path, every: int = 4) -> None:
    """Write clips (uint8 ``[T, H, W, 3]``) as rows of every ``every``-th pixel frame into one picture."""
    strips = [np.concatenate(list(row[::every]), axis=1) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(strips, axis=0)).save(path)

"""What one of several processes does for `test_shard`: the same small training, split, with its results on the disk.

python -m torch.distributed.run --nproc_per_node N tests/training/run/shard_process.py all=FOLDER resume=OTHER
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from ardrag.rollout import GeneratorNoise, seeded_generator
from tests.training.conftest import build_conditions, build_transformer
from training.rollouts.self_rollout import replay, self_rollout
from training.run.checkpoint import RunState
from training.run.runtime import Learner, leave
from training.run.shard import clip_gradients, gathered, inner, shard, sharded_parts, sum_gradients, whole, whole_model


SIGMAS = [1.0, 0.6, 0.3, 0.0]
CLIPS, STEPS = 4, 2


@dataclass
class Config:
    output_dir: str


def roll_out(transformer, clips, half=False):
    """Rollouts of the clips with the given numbers, each with its own conditions and noise."""
    found = []
    for clip in clips:
        conditions, reference = build_conditions(4, batch=1, seed=clip)
        noise = GeneratorNoise([seeded_generator(7, clip)], torch.device("cpu"), torch.float32)
        with gathered(transformer), torch.autocast("cpu", torch.bfloat16, enabled=half):
            rollout = self_rollout(transformer, conditions, SIGMAS, 1.0, noise, reference, 1)
            assert not any(isinstance(p, DTensor) for p in transformer.parameters())  # gathered once, for all of it
        found.append((rollout, conditions))
    return found


class Training:
    """A few updates of a small transformer on its own rollouts, split over the processes if there are several."""

    def __init__(self, folder, half=False):
        self.accelerator, self.half = Accelerator(cpu=True), half
        self.transformer = build_transformer()
        self.twin = None
        if self.accelerator.num_processes > 1:
            self.twin = shard(self.transformer, self.accelerator, half)
        self.trained = list(self.transformer.parameters())
        self.optimizer = torch.optim.AdamW(self.trained, 1e-2, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.01)
        self.average = EMAModel(self.trained, decay=0.9, use_ema_warmup=True)
        models, optimizers = {"model": self.transformer}, {"model": self.optimizer}
        self.state = RunState(self.accelerator, Config(str(folder)), models, optimizers, self.average)

    def gradients(self, batch):
        """Gradients of the mean over all clips, in batches of ``batch`` for each process, and the loss before them."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        rounds, learner, total = CLIPS // (world * batch), Learner(self.transformer), 0.0
        for part in range(rounds):
            first = (part * world + rank) * batch
            sum_gradients(self.transformer, part + 1 == rounds)
            for rollout, conditions in roll_out(self.transformer, range(first, first + batch), self.half):
                with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                    clean = replay(learner, self.transformer, rollout, conditions)
                loss = (clean - 0.1).square().mean() / batch / rounds
                loss.backward()
                total += loss.item()
        return {name: whole(p.grad).clone() for name, p in zip(self.names(), self.trained, strict=True)}, total

    def names(self):
        return [name for name, _ in build_transformer().named_parameters()]

    def train(self, first, last, batch=1):
        losses = []
        for _ in range(first, last):
            losses.append(self.gradients(batch)[1])
            clip_gradients(self.accelerator, self.trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.average.step(self.trained)
        return losses


def results(folder):
    """All that must be the same on any number of processes, by name."""
    training = Training(folder)
    found = {}
    rollout, _ = roll_out(training.transformer, [0])[0]
    found |= {"rollout/latents": rollout.latents, "rollout/exit_clean": rollout.exit_clean}
    if training.twin is not None:
        assert len(sharded_parts(training.transformer)) == 3  # two blocks and the rest
        assert all(isinstance(p, DTensor) for p in training.transformer.parameters())
    gradients, _ = training.gradients(1)
    found |= {f"gradient/{name}": value for name, value in gradients.items()}
    found["inner"] = torch.tensor(inner((p.grad, p.grad) for p in training.trained))
    training.optimizer.zero_grad()
    training.train(0, STEPS)
    training.state.save(STEPS)
    found |= {
        f"weight/{name}": whole(p.detach()).clone() for name, p in zip(training.names(), training.trained, strict=True)
    }
    shadows = dict(zip(training.names(), training.average.shadow_params, strict=True))
    found |= {f"average/{name}": whole(value).clone() for name, value in shadows.items()}
    if training.twin is not None:
        exported = whole_model(training.transformer, training.twin, shadows, training.accelerator.is_main_process)
        if training.accelerator.is_main_process:
            assert all(torch.equal(exported.state_dict()[name], found[f"average/{name}"]) for name in shadows)
            assert type(exported) is type(build_transformer())
    losses = training.train(STEPS, STEPS + 1)
    found["losses"] = torch.tensor(losses)
    return training.accelerator, found


def resume(folder):
    """The loss of the step after the state in ``folder``, whoever wrote it."""
    training = Training(folder)
    step = training.state.load()
    return training.accelerator, {"losses": torch.tensor(training.train(step, step + 1))}


def found_by(kind, folder):
    """Do ``all`` of it or ``resume`` in a folder, and write what was found there, by kind and number of processes."""
    folder.mkdir(exist_ok=True)
    accelerator, found = {"all": results, "resume": resume}[kind](folder)
    if kind == "all":
        training = Training(folder / "half", half=True)
        training.transformer.requires_grad_(False)  # as a critic is at its first call
        roll_out(training.transformer, [0], half=True)
        training.transformer.requires_grad_(True)
        found["half"] = torch.tensor([training.gradients(1)[1]])
        assert {p.grad.dtype for p in training.trained} == {torch.float32}
    for name in sorted({"losses", "half"} & found.keys()):  # each process has seen its own clips, all in one order
        found[name] = accelerator.reduce(found[name], "mean") if accelerator.num_processes > 1 else found[name]
    if accelerator.is_main_process:
        tensors = {name: value.detach().clone().contiguous() for name, value in found.items()}
        save_file(tensors, folder / f"{kind} on {accelerator.num_processes}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        kind, folder = argument.split("=")
        found_by(kind, Path(folder))
    leave()

"""Models that are split over the processes of a run (FSDP2), block by block.

Each process keeps its share of every parameter, of its gradient and of what the optimizer remembers, in float32. A
block is gathered when its turn comes and released after it; with ``half`` it is gathered in bfloat16, while gradients
are summed in float32. Launch, log and autocast stay accelerate's; it is never told about the model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from pipelines import ARDragPipeline
from training.run.checkpoint import RunState
from training.run.runtime import averaged


def shard(model: nn.Module, accelerator: Accelerator, half: bool, methods: Sequence[str] = ()) -> nn.Module:
    """Split ``model`` in place over all processes; returns its twin without weights, for `whole_model`.

    Args:
        half: compute in bfloat16, under `torch.autocast`.
        methods: what is called on the model besides ``forward``, so that it gathers the parameters too.
    """
    twin = copy.deepcopy(model).to("meta")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    # Inputs stay as they are: 1000 sigma does not fit into bfloat16, and autocast casts what is to be cast.
    policy = MixedPrecisionPolicy(torch.bfloat16 if half else None, torch.float32, cast_forward_inputs=False)
    for part in (*blocks_of(model), model):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for name in methods:
        register_fsdp_forward_method(model, name)
    for part in sharded_parts(model):
        part.set_force_sum_reduction_for_comms(dist.get_backend() == "gloo")  # gloo cannot average
    # At the first call FSDP notes in which dtype gradients are summed, and would note none where the model is frozen
    # then, as a critic is while the student learns: gradients would stay bfloat16. torch has no public name for this.
    sharded_parts(model)[0]._get_fsdp_state()._lazy_init()
    return twin


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: the list in it that holds most parameters."""
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    return list(max(lists, key=lambda part: sum(p.numel() for p in part.parameters()), default=[]))


def sharded_parts(model: nn.Module) -> list[FSDPModule]:
    """What of ``model`` is gathered and released as one; nothing where the model is whole."""
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


@contextmanager
def gathered(*models: nn.Module) -> Iterator[None]:
    """Within, what was gathered for a pass without gradient stays, as a rollout of many passes wants; then it goes.

    Nothing happens to models that are whole.
    """
    parts = [part for model in models for part in sharded_parts(model)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


@contextmanager
def rollout_precision(model: nn.Module) -> Iterator[None]:
    """Within, a model in float32 computes in it, as at inference, one that is sharded or partly halved as in training.

    What is held or gathered in bfloat16 cannot do otherwise; it must be called under the autocast of its training.
    """
    device = next(model.parameters()).device.type
    bound = bool(sharded_parts(model)) or any(p.dtype == torch.bfloat16 for p in model.parameters())
    enabled = torch.is_autocast_enabled(device) and bound
    with torch.autocast(device, torch.get_autocast_dtype(device), enabled=enabled):
        yield


def sum_gradients(model: nn.Module, now: bool) -> None:
    """Let the backward passes that follow sum gradients over the processes, or only gather them up on each."""
    for part in sharded_parts(model):
        part.set_requires_gradient_sync(now, recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """A tensor in full, on every process; all of them must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_model(model: nn.Module, twin: nn.Module, instead: Mapping[str, Tensor], keep: bool) -> nn.Module:
    """Fill ``twin`` with the weights of a sharded model, on the CPU; all processes must ask for it.

    Args:
        instead: weights by name that take the place of the model's own, as averages do.
        keep: fill the twin, as the one process does that writes it.
    """
    found = {}
    for name, value in model.state_dict().items():
        full = whole(instead.get(name, value).detach())
        if keep:
            found[name] = full.cpu()
    if keep:
        twin.load_state_dict(found, assign=True)
    return twin


@contextmanager
def averaged_pipeline(pipeline: ARDragPipeline, state: RunState, twin: nn.Module | None) -> Iterator[None]:
    """Within, ``pipeline`` has the averaged weights of a run, whole, on the main process; all must enter.

    ``twin`` is that of a sharded transformer (see `shard`), or None.
    """
    if twin is None:
        with averaged(state.average, list(next(iter(state.learned.values())).values())):
            yield
        return
    averages = {name.removeprefix("transformer."): value for name, value in state.averages().items()}
    sharded, main = pipeline.transformer, state.accelerator.is_main_process
    twin = whole_model(sharded, twin, averages, keep=main)
    pipeline.register_modules(transformer=twin.to(state.accelerator.device).eval() if main else sharded)
    try:
        yield
    finally:
        pipeline.register_modules(transformer=sharded)
        twin.to("meta")


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def inner(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Sum of the products of ``pairs`` of tensors, over all processes where they are sharded."""
    pairs = list(pairs)
    products = [(local(a) * local(b)).sum(dtype=torch.float32) for a, b in pairs]
    if not products:
        return 0.0
    total = torch.stack(products).sum()
    if isinstance(pairs[0][0], DTensor):
        dist.all_reduce(total)
    return float(total)


def clip_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale gradients to a norm of at most ``limit``; returns the norm that they had."""
    norm = accelerator.clip_grad_norm_(parameters, limit)
    assert norm is not None
    return float(whole(norm))

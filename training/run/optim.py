"""Muon with AdamW beside it, as one optimizer with one state dict.

Matrices and convolution kernels (flattened to two dimensions) take Muon's orthogonalised momentum, everything else
takes AdamW. `torch.optim.Muon` refuses convolutions and works in bfloat16, which is slower than float32 on the CPUs
that train the tiny checkpoint; here matrices of equal shape are also orthogonalised in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EDGES = (
    *("patch_embedding", "proj_out", "slot_gates", "scale_shift_table", "condition_embedder"),
    *("conv_in", "conv_out", "embed_tokens", "shared"),
)
"""Parts of the names of first and last layers."""


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Move the singular values of ``matrices`` ``[N, rows, columns]`` near 1 (quintic Newton-Schulz iteration)."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def split_parameters(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> tuple[list[Any], list[Any]]:
    """Split trainable parameters into (matrices for Muon, the rest for AdamW).

    Embeddings, the first and the last projection of a network stay with AdamW, as Muon's authors advise.
    """
    matrices, rest = [], []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            edge = any(part in name for part in EDGES)
            (rest if parameter.ndim < 2 or edge else matrices).append(parameter)
    return matrices, rest


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices, AdamW for the rest.

    Args:
        named_parameters: parameters with their names, as `nn.Module.named_parameters` gives them.
        muon_lr: step of the matrices; the update has unit spectral norm times ``sqrt(max(1, rows / columns))``.
        adamw_lr: step of all other parameters.
        momentum: Nesterov momentum of Muon.
        betas: AdamW's decay rates.
        weight_decay: decoupled weight decay of both.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        muon_lr: float = 0.02,
        adamw_lr: float = 1e-3,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        matrices, rest = split_parameters(named_parameters)
        groups: list[dict[str, Any]] = []
        if matrices:
            groups.append({"params": matrices, "muon": True, "lr": muon_lr, "momentum": momentum})
        if rest:
            groups.append({"params": rest, "muon": False, "lr": adamw_lr, "momentum": momentum})
        if not groups:
            raise ValueError("named_parameters: nothing to train; every parameter is frozen")
        super().__init__(groups, {"betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update; gradients must be there, parameters without one are left alone."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["muon"]:
                self._muon_step(parameters, group)
            else:
                self._adamw_step(parameters, group)

    def _muon_step(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            ahead = torch.lerp(parameter.grad, state["momentum"], group["momentum"]).flatten(1)
            by_shape[ahead.shape[0], ahead.shape[1]].append((parameter, ahead))
        for (rows, columns), members in by_shape.items():
            updates = orthogonalize(torch.stack([ahead for _, ahead in members]))
            scale = group["lr"] * max(1.0, rows / columns) ** 0.5
            for (parameter, _), update in zip(members, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-scale)

    def _adamw_step(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
            count = float(state["step"])
            state["mean"].lerp_(parameter.grad, 1 - first)
            state["square"].mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
            scale = (state["square"] / (1 - second**count)).sqrt_().add_(1e-8)
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.addcdiv_(state["mean"], scale, value=-group["lr"] / (1 - first**count))


def build_optimizer(
    kind: str,
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    muon_lr: float,
    adamw_lr: float,
    betas: Sequence[float],
    weight_decay: float,
) -> torch.optim.Optimizer:
    """``muon`` (`MuonAdamW`, with rates of its own), or ``adamw`` for all that learns."""
    if kind == "muon":
        return MuonAdamW(named_parameters, muon_lr, adamw_lr)
    trained = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    return torch.optim.AdamW(trained, adamw_lr, betas=(betas[0], betas[1]), weight_decay=weight_decay)


def warmup_cosine(step: int, warmup: int, total: int, final: float = 0.05) -> float:
    """Learning-rate factor: linear warm-up over ``warmup`` steps, then cosine to ``final`` at ``total``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return final + (1 - final) * 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))

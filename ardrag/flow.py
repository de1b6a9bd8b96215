"""Flow matching in one page: noise, velocity, schedule, the transition kernel and its log-probability.

``sigma`` is in [0, 1] and 1 means noise, everywhere. The paper uses three conventions for it; this is the one of its
Eq. 4 and appendix B.2. With ``velocity = noise - clean`` (AR-Drag Eq. 2):

    noisy = (1 - sigma) * clean + sigma * noise
    clean = noisy - sigma * velocity
    noise = noisy + (1 - sigma) * velocity

Sigmas are floats or tensors that broadcast against latents ``[B, C, F, H, W]``, for instance ``[B, 1, F, 1, 1]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from diffusers import UniPCMultistepScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ardrag.saving import AtHome


FEW_STEP_SIGMAS = (1.0, 0.755, 0.522, 0.0)
"""The paper's three-step schedule (appendix B.2: timesteps 1000, 755, 522, 0)."""


CHOICES = {
    "mode": ("causal", "bidirectional"),
    "solver": ("euler", "unipc"),
    "motion_null": ("blank", "zeros"),
    "first_frame": ("encode", "generate"),
}
"""Settings of `FewStepScheduler` that are words."""


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """Noisy latents at level ``sigma`` (AR-Drag Eq. 1, straight path)."""
    return (1 - sigma) * clean + sigma * noise


def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """What the transformer learns to predict (AR-Drag Eq. 2, with 1 = noise)."""
    return noise - clean


def clean_from_velocity(noisy: Tensor, velocity: Tensor, sigma: Tensor | float) -> Tensor:
    """Clean latents that ``velocity`` implies."""
    return noisy - sigma * velocity


def noise_from_velocity(noisy: Tensor, velocity: Tensor, sigma: Tensor | float) -> Tensor:
    """Noise that ``velocity`` implies."""
    return noisy + (1 - sigma) * velocity


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Move sigmas towards noise by ``shift`` (1 = unchanged): ``shift*s / (1 + (shift-1)*s)``."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


class Transition(NamedTuple):
    """Gaussian of one denoising step: ``mean`` like the latents, ``std`` one number."""

    mean: Tensor
    std: float


Kernel = Callable[[Tensor, Tensor, float, float, float], Transition]
"""A transition kernel: (noisy, velocity, sigma, next sigma, stochasticity) to a Gaussian; 0 is the ODE."""


def transition(noisy: Tensor, velocity: Tensor, sigma: float, next_sigma: float, eta: float) -> Transition:
    """THE transition kernel from ``sigma`` to ``next_sigma`` (coefficients-preserving form).

    ``mean = (1-u)*clean + u*cos(eta*pi/2)*noise`` and ``std = u*sin(eta*pi/2)`` with ``u = next_sigma``. ``eta = 0``
    is the Euler step of the flow ODE, ``eta = 1`` is the paper's re-noising Psi (Algorithm 1), and between them lies
    exploration with the exact variance ``u**2`` around the clean part.

    Raises:
        ValueError: if ``eta`` is outside [0, 1] or the step does not go towards clean.
    """
    _check_step(sigma, next_sigma)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: {eta} is outside [0, 1]; 0 is the ODE, 1 re-noises")
    clean = clean_from_velocity(noisy, velocity, sigma)
    noise = noise_from_velocity(noisy, velocity, sigma)
    angle = eta * math.pi / 2
    kept = 0.0 if eta == 1 else math.cos(angle)
    return Transition((1 - next_sigma) * clean + next_sigma * kept * noise, next_sigma * math.sin(angle))


def transition_eq4(noisy: Tensor, velocity: Tensor, sigma: float, next_sigma: float, noise_level: float) -> Transition:
    """The paper's Eq. 4 taken literally, with ``sigma_t = noise_level * sqrt(sigma / (1 - sigma))`` (Flow-GRPO).

    Right only with 1 = noise, a negative step and ``sqrt(|step|)``; at ``sigma = 1`` the next sigma stands in for it
    in the coefficient, which would be infinite. At the three-step schedule it leaves too much noise above
    ``noise_level`` 0.3; `transition` has no such error.

    Raises:
        ValueError: if the last step (``next_sigma = 0``) is asked to be stochastic, or the step goes the wrong way.
    """
    _check_step(sigma, next_sigma)
    if next_sigma == 0 and noise_level > 0:
        raise ValueError("noise_level: the last step must stay deterministic; choose an earlier stochastic step")
    step = next_sigma - sigma
    reference = next_sigma if sigma == 1 else sigma
    diffusion = 0.0 if noise_level == 0 else noise_level * math.sqrt(sigma / (1 - reference))
    noise = noise_from_velocity(noisy, velocity, sigma)
    mean = noisy + (velocity + diffusion**2 / (2 * sigma) * noise) * step
    return Transition(mean, diffusion * math.sqrt(-step))


def _check_step(sigma: float, next_sigma: float) -> None:
    if not 0 <= next_sigma < sigma <= 1:
        raise ValueError(f"sigmas: a step must go down within [0, 1], not from {sigma} to {next_sigma}")


def gaussian_log_prob(sample: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log-density per sample ``[B]`` of an isotropic Gaussian, averaged over all other dimensions.

    The average (rather than the sum) is what makes a ratio of two of them usable in Eq. 14: the sum over tens of
    thousands of dimensions would saturate every clip range.
    """
    if std <= 0:
        raise ValueError(f"std: {std} is not positive; a deterministic step has no log-probability")
    residual = (sample.float() - mean.float()) / std
    log_density = -0.5 * residual.square() - math.log(std) - 0.5 * math.log(2 * math.pi)
    return log_density.flatten(1).mean(1)


class FewStepScheduler(AtHome, SchedulerMixin, ConfigMixin):
    """Schedule and sampler settings of a checkpoint, saved beside it so that it always runs as it was trained.

    Args:
        sigmas: the checkpoint's own schedule from 1 to 0, K + 1 values; None means a shifted uniform one.
        num_inference_steps: steps per latent where the user does not say.
        shift: shift of the uniform schedule.
        eta: the kernel's stochasticity (see `transition`); 0 ODE, 1 re-noise.
        first_frame: ``"encode"`` clamps latent 0 to the encoded reference, ``"generate"`` makes it (AR-Drag Eq. 6).
        num_train_timesteps: ``timestep = num_train_timesteps * sigma`` at the transformer's door.
        mode: ``"causal"``, chunk by chunk against a cache, or ``"bidirectional"``, the whole clip at once.
        solver: of the ODE where the whole clip is made at once: ``"euler"``, or ``"unipc"`` as Wan's own pipelines.
        guidance_scale: guidance over the text where the user does not say; 1 is off.
        motion_guidance_scale: likewise over the motion (`ardrag.guidance`).
        motion_null: the motion slot without any track, for guidance: ``"blank"``, the control of no tracks, or
            ``"zeros"``, where that is what was dropped in training.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        sigmas: Sequence[float] | None = FEW_STEP_SIGMAS,
        num_inference_steps: int = 3,
        shift: float = 5.0,
        eta: float = 1.0,
        first_frame: str = "encode",
        num_train_timesteps: int = 1000,
        mode: str = "causal",
        solver: str = "euler",
        guidance_scale: float = 1.0,
        motion_guidance_scale: float = 1.0,
        motion_null: str = "blank",
    ) -> None:
        settings = {"mode": mode, "solver": solver, "motion_null": motion_null, "first_frame": first_frame}
        for name, value in settings.items():
            if value not in CHOICES[name]:
                raise ValueError(f"{name}: {value!r} is unknown; use {' or '.join(map(repr, CHOICES[name]))}")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta: {eta} is outside [0, 1]; 0 is the ODE, 1 re-noises")
        if sigmas is not None:
            _check_schedule(sigmas)
            self.register_to_config(sigmas=[float(sigma) for sigma in sigmas])  # a list, as when loaded from a file
        self.set_timesteps(num_inference_steps)

    def set_timesteps(self, num_inference_steps: int | None = None, device: torch.device | str | None = None) -> None:
        """Choose the number of steps; sets ``sigmas`` (list of K + 1 floats) and ``timesteps`` ``[K]``.

        Raises:
            ValueError: if the number of steps is not positive.
        """
        self.sigmas = self.schedule(num_inference_steps)
        self.timesteps = torch.tensor(self.sigmas[:-1], device=device) * self.config.num_train_timesteps

    def _steps(self, num_inference_steps: int | None) -> int:
        """The checkpoint's own number where the user does not say."""
        return int(self.config.num_inference_steps) if num_inference_steps is None else num_inference_steps

    def schedule(self, num_inference_steps: int | None = None) -> list[float]:
        """Sigmas for a number of steps, ``K + 1`` values from 1 to 0: the checkpoint's own where it has that many."""
        num_inference_steps = self._steps(num_inference_steps)
        number = isinstance(num_inference_steps, Integral) and not isinstance(num_inference_steps, bool)
        if not number or num_inference_steps < 1:
            raise ValueError(
                f"num_inference_steps: {num_inference_steps} must be a whole number of at least 1; use 3, or up to 50"
            )
        num_inference_steps, own = int(num_inference_steps), self.config.sigmas
        if own is not None and len(own) == num_inference_steps + 1:
            return [float(sigma) for sigma in own]
        uniform = torch.linspace(1, 0, num_inference_steps + 1, dtype=torch.float64)
        return [float(sigma) for sigma in shift_sigmas(uniform, self.config.shift)]

    def multistep(self, num_inference_steps: int | None = None) -> UniPCMultistepScheduler | None:
        """diffusers' UniPC with its timesteps set, as Wan's own pipelines run; None where the solver is Euler's."""
        if self.config.solver == "euler":
            return None
        solver = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=self.config.shift
        )
        solver.set_timesteps(self._steps(num_inference_steps))
        return solver

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """One step of diffusers' denoising loop, by the kernel and ``eta`` of the checkpoint.

        Args:
            model_output: predicted velocity, like ``sample``.
            timestep: one of ``timesteps``; the next one, or 0 after the last, is where the step goes.
            sample: latents at that timestep.
            generator: source of the noise where ``eta`` is above 0.

        Raises:
            ValueError: if the timestep is not among ``timesteps``.
        """
        sigma = float(timestep) / self.config.num_train_timesteps
        index = min(range(len(self.timesteps)), key=lambda i: abs(self.sigmas[i] - sigma))
        if abs(self.sigmas[index] - sigma) > 1e-3:
            known = ", ".join(f"{known:g}" for known in self.timesteps.tolist())
            raise ValueError(f"timestep: {float(timestep):g} is not one of {known}; loop over scheduler.timesteps")
        next_sigma = self.sigmas[index + 1]
        eta = self.config.eta if next_sigma else 0.0
        mean, std = transition(sample, model_output, self.sigmas[index], next_sigma, eta)
        noise = randn_tensor(mean.shape, generator, mean.device, mean.dtype) if std > 0 else torch.zeros_like(mean)
        before = mean + std * noise
        return SchedulerOutput(prev_sample=before) if return_dict else (before,)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """The sample as it is; other schedulers of diffusers scale it here."""
        return sample

    def scale_noise(self, sample: Tensor, timestep: Tensor | float, noise: Tensor) -> Tensor:
        """`add_noise` as diffusers calls it, with ``timestep`` one number or one for each sample."""
        sigma = torch.as_tensor(timestep).to(sample) / self.config.num_train_timesteps
        return add_noise(sample, noise, sigma.reshape(-1, *[1] * (sample.ndim - 1)) if sigma.ndim else sigma)

    @classmethod
    def _get_compatibles(cls) -> list[type[FewStepScheduler]]:
        # diffusers looks for classes of its own; but the sampler belongs to the checkpoint.
        return [cls]

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)


def _check_schedule(sigmas: Sequence[float]) -> None:
    falling = all(later < earlier for earlier, later in zip(sigmas, sigmas[1:], strict=False))
    if len(sigmas) < 2 or sigmas[0] != 1 or sigmas[-1] != 0 or not falling:
        raise ValueError(f"sigmas: {list(sigmas)} must fall strictly from 1 to 0")


KERNELS: dict[str, Kernel] = {"cps": transition, "eq4": transition_eq4}
"""Transition kernels by the names that configurations use."""

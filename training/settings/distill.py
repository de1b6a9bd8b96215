"""Settings of stage 2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from ardrag.flow import FEW_STEP_SIGMAS, FewStepScheduler
from training.rollouts.self_rollout import CacheUpdate, chunk_edges
from training.settings.scale import MuonConfig


@dataclass
class DistillConfig(MuonConfig):
    """Configuration of stage 2."""

    output_dir: str = field(metadata={"help": "Run folder: state, log, curves, sheets and the pipeline."})
    init_from: str = field(metadata={"help": "Pipeline of the causal student to start from."})
    teacher: str = field(metadata={"help": "Pipeline of the bidirectional teacher; the critic starts from it too."})
    data: list[str] = field(default_factory=list, metadata={"help": "Folders or Hub names of precomputed latents."})
    cache_update: str = field(
        default="rollout",
        metadata={"help": "What becomes history: rollout (Algorithm 1), collapse (Algorithm 2) or truth (filmed)."},
    )
    chunk_frames: int = field(default=1, metadata={"help": "Latents per autoregressive step: 1 ours, 3 Self-Forcing."})
    eta: float = field(default=1.0, metadata={"help": "Sampler: 1 re-noises (the paper's Psi), 0 is the ODE."})
    first_frame: str = field(default="encode", metadata={"help": "Latent 0: generate (the paper) or encode."})
    sigmas: list[float] = field(
        default_factory=lambda: list(FEW_STEP_SIGMAS), metadata={"help": "The student's schedule, from 1 to 0."}
    )
    ode_steps: int = field(default=0, metadata={"help": "First steps spent on causal ODE regression; 0 = none."})
    ode_solver_steps: int = field(default=12, metadata={"help": "Steps of the ODE that is regressed to."})
    num_latents: int = field(default=9, metadata={"help": "Latent frames per clip; shorter clips train as they are."})
    steps: int = field(default=600, metadata={"help": "Critic updates."})
    critic_updates: int = field(default=3, metadata={"help": "Critic updates per update of the student."})
    batch_size: int = field(default=4, metadata={"help": "Clips per step and process."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per update."})
    dmd_weight: float = field(default=1.0, metadata={"help": "Weight of distribution matching (B.2: 1)."})
    gan_weight: float = field(default=0.1, metadata={"help": "Weight of the adversarial loss (B.2: 0.1)."})
    discriminator_weight: float = field(default=0.05, metadata={"help": "Weight of the discriminator (B.2: 0.05)."})
    data_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the squared distance to the clip that was filmed; the paper has none."},
    )
    text_guidance: float = field(default=0.0, metadata={"help": "Teacher's guidance over text; 3 = a scale of 4."})
    motion_guidance: float = field(default=0.0, metadata={"help": "Teacher's guidance over motion."})
    score_shift: float = field(default=5.0, metadata={"help": "Shift of the noise levels at which scores meet."})
    muon_lr: float = field(default=0.002, metadata={"help": "The student's learning rate of matrices."})
    adamw_lr: float = field(default=1e-4, metadata={"help": "The student's learning rate of everything else."})
    critic_muon_lr: float = field(default=0.004, metadata={"help": "The critic's learning rate of matrices."})
    critic_adamw_lr: float = field(default=2e-4, metadata={"help": "The critic's learning rate of everything else."})
    warmup: int = field(default=20, metadata={"help": "Warm-up steps."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping."})
    ema_decay: float = field(default=0.99, metadata={"help": "Decay of the student's averaged weights."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute activations to save memory."})
    mixed_precision: str = field(default="no", metadata={"help": "bf16 runs everything but the rollout in half."})
    seed: int = field(default=0, metadata={"help": "Seed of data order and noise."})
    log_every: int = field(default=10, metadata={"help": "Updates of the student between log rows."})
    save_every: int = field(default=100, metadata={"help": "Steps between saved states, pipelines and sheets."})
    validate: bool = field(default=True, metadata={"help": "Draw sheets at every save."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole_adapter()
        self.require_no_encoder(self.validate)
        if self.cache_update not in get_args(CacheUpdate):
            raise ValueError(f"cache_update: {self.cache_update!r} is unknown; use {', '.join(get_args(CacheUpdate))}")
        if self.critic_updates < 1:
            raise ValueError(f"critic_updates: {self.critic_updates} is not positive; use 1 to 5")
        FewStepScheduler(self.sigmas, eta=self.eta, first_frame=self.first_frame)  # checks the three
        chunk_edges(self.num_latents, self.chunk_frames, self.first_frame == "encode")

"""Settings of stage 3."""

from __future__ import annotations

from dataclasses import dataclass, field

from ardrag.flow import KERNELS
from training.settings.scale import ScaleConfig


MODES = ("ode_sde", "crn", "sde")
"""``sde`` is what the paper compares with: every step draws noise of its member's own; one of them is trained on."""


@dataclass
class GrpoConfig(ScaleConfig):
    """Configuration of stage 3."""

    output_dir: str = field(metadata={"help": "Run folder: state, log, curves, sheets and the pipeline."})
    init_from: str = field(metadata={"help": "Pipeline of the distilled student; also the reference."})
    prompts: str = field(default="sprites", metadata={"help": "A world, or a dataset: see training.rollouts.prompts."})
    num_latents: int = field(default=9, metadata={"help": "Latent frames per clip."})
    group_size: int = field(default=8, metadata={"help": "Videos per prompt."})
    mode: str = field(
        default="ode_sde",
        metadata={
            "help": "ode_sde: only the chosen step is stochastic (the paper); crn: all are, alike but one; sde: all."
        },
    )
    kernel: str = field(default="cps", metadata={"help": "Transition kernel: cps, or eq4 (the paper's, literally)."})
    eta: float = field(default=0.7, metadata={"help": "Stochasticity; for eq4 its noise level, at most 0.3."})
    share_initial_noise: bool = field(default=True, metadata={"help": "The group starts from the same noise."})
    share_history: bool = field(
        default=False,
        metadata={"help": "All go on from one past (member 0's): a latent is paid for itself alone."},
    )
    credit_radius: float = field(
        default=0.0, metadata={"help": "Latent pixels from a drawn point within which actions count; 0: everywhere."}
    )
    credit_smoothing: float = field(
        default=0.0, metadata={"help": "Latent pixels over which noise is averaged before it is paid; 0: the paper."}
    )
    credit: float = field(default=0.0, metadata={"help": "Discount of later rewards; 0 is the paper."})
    rewards: list[str] = field(
        default_factory=lambda: ["motion=1.0"],
        metadata={"help": "name=weight: motion, constancy, aesthetic, sprite_aesthetic."},
    )
    reward_order: str = field(
        default="sum_then_normalize", metadata={"help": "sum_then_normalize (Eq. 12-13) or normalize_then_sum."}
    )
    tracker: str = field(
        default="patch",
        metadata={"help": "patch or lucas_kanade (no weights), cotracker or cotracker_online."},
    )
    tracker_checkpoint: str = field(default="", metadata={"help": "Local weights of CoTracker."})
    aesthetic_head: str = field(default="", metadata={"help": "Local weights of LAION's head, or folder of a scorer."})
    reward_device: str = field(default="cpu", metadata={"help": "Where reward models run."})
    reward_processes: bool = field(default=False, metadata={"help": "Each reward in a process of its own."})
    reward_attempts: int = field(default=3, metadata={"help": "Tries of a reward that fails before the run stops."})
    spread_floor: float = field(
        default=1e-4,
        metadata={"help": "Added to a group's spread (Eq. 13): larger, and groups of near equals count less."},
    )
    shuffle_advantages: bool = field(default=False, metadata={"help": "Control: advantages go to random members."})
    steps: int = field(default=300, metadata={"help": "Rollouts."})
    updates: int = field(default=1, metadata={"help": "Updates per rollout."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Prompts per update and process."})
    clip: float = field(default=1e-4, metadata={"help": "Clip range of the ratio."})
    beta: float = field(default=0.004, metadata={"help": "Weight of the divergence from the reference."})
    beta_elsewhere: float = field(
        default=0.0, metadata={"help": "Further weight of it outside of credit_radius, where nothing is to be earned."}
    )
    history_gradient: bool = field(default=False, metadata={"help": "Gradient also through what reads the history."})
    learning_rate: float = field(default=1e-5, metadata={"help": "AdamW."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping."})
    ema_decay: float = field(default=0.97, metadata={"help": "Decay of the averaged weights."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute activations to save memory."})
    mixed_precision: str = field(default="no", metadata={"help": "bf16 runs replays in half precision."})
    seed: int = field(default=0, metadata={"help": "Seed of prompts and noise."})
    log_every: int = field(default=1, metadata={"help": "Steps between log rows."})
    save_every: int = field(default=50, metadata={"help": "Steps between saved states, pipelines and sheets."})
    validate: bool = field(default=True, metadata={"help": "Draw a validation sheet at every save."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stored_tokens:
            raise ValueError("stored_tokens: stage 3 makes clips of pictures and texts; leave it out")
        if self.mode not in MODES:
            raise ValueError(f"mode: {self.mode!r} is unknown; use {', '.join(MODES[:-1])} or {MODES[-1]}")
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel: {self.kernel!r} is unknown; use {' or '.join(KERNELS)}")
        if not 0 < self.eta <= 1:
            raise ValueError(f"eta: {self.eta} is outside (0, 1]; without noise there is nothing to learn from")
        if self.credit_radius < 0 or self.credit_smoothing < 0 or self.spread_floor <= 0:
            raise ValueError("credit_radius, credit_smoothing and spread_floor: must be at least 0, 0 and above 0")
        if self.beta_elsewhere and not self.credit_radius:
            raise ValueError("beta_elsewhere: without credit_radius there is no elsewhere; use beta")
        if self.share_history and self.credit:
            raise ValueError("credit: with share_history nothing later follows from a member; set credit to 0")
        if self.group_size < 2:
            raise ValueError(f"group_size: {self.group_size} is no group; use 4 to 16")

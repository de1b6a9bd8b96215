"""Settings of causal consistency distillation."""

from __future__ import annotations

from dataclasses import dataclass, field

from ardrag.flow import FEW_STEP_SIGMAS, FewStepScheduler
from training.settings.scale import ScaleConfig


@dataclass
class ConsistencyConfig(ScaleConfig):
    """Configuration of causal consistency distillation, one of the starts of stage 2."""

    output_dir: str = field(metadata={"help": "Run folder: state, log, curves, sheets and the pipeline."})
    init_from: str = field(metadata={"help": "Pipeline of the causal model that teaches itself: student and average."})
    teacher: str = field(default="", metadata={"help": "Pipeline of the causal teacher; default: init_from."})
    data: list[str] = field(default_factory=list, metadata={"help": "Folders or Hub names of precomputed latents."})
    num_latents: int = field(default=9, metadata={"help": "Latent frames per clip; shorter clips train as they are."})
    solver_steps: int = field(default=48, metadata={"help": "Steps of the teacher's ODE, of which one is taken."})
    sigma_shift: float = field(default=5.0, metadata={"help": "Shift of the solver's noise levels."})
    text_guidance: float = field(default=0.0, metadata={"help": "Teacher's guidance over text; 2 = a scale of 3."})
    motion_guidance: float = field(default=0.0, metadata={"help": "Teacher's guidance over motion."})
    first_frame: str = field(default="encode", metadata={"help": "Latent 0: generate (the paper) or encode."})
    sigmas: list[float] = field(
        default_factory=lambda: list(FEW_STEP_SIGMAS), metadata={"help": "The student's schedule, from 1 to 0."}
    )
    steps: int = field(default=2000, metadata={"help": "Updates."})
    batch_size: int = field(default=4, metadata={"help": "Clips per step and process."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per update."})
    learning_rate: float = field(default=1e-5, metadata={"help": "AdamW."})
    warmup: int = field(default=20, metadata={"help": "Warm-up steps."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping."})
    ema_decay: float = field(default=0.99, metadata={"help": "Decay of the average, which is the target."})
    ema_start: int = field(default=200, metadata={"help": "Steps for which the average is the student itself."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute activations to save memory."})
    mixed_precision: str = field(default="no", metadata={"help": "bf16 runs all passes in half precision."})
    seed: int = field(default=0, metadata={"help": "Seed of data order and noise."})
    log_every: int = field(default=10, metadata={"help": "Steps between log rows."})
    save_every: int = field(default=200, metadata={"help": "Steps between saved states, pipelines and sheets."})
    validate: bool = field(default=True, metadata={"help": "Draw a validation sheet at every save."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole_adapter()
        self.require_no_encoder(self.validate)
        if self.solver_steps < 2:
            raise ValueError(f"solver_steps: {self.solver_steps} leaves nothing to be consistent with; use 24 to 96")
        if self.num_latents < 2:
            raise ValueError(f"num_latents: {self.num_latents} is too short to move; use 2 or more")
        FewStepScheduler(self.sigmas, first_frame=self.first_frame)  # checks both

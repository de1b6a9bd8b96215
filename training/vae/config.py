"""Configuration of the VAE stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.run.hub import HubConfig


@dataclass
class VAEConfig(HubConfig):
    """Configuration of the VAE stage."""

    output_dir: str = field(metadata={"help": "Run folder: state, log, curves, contact sheets and the trained VAE."})
    base_dim: int = field(default=24, metadata={"help": "Encoder width."})
    decoder_base_dim: int = field(default=24, metadata={"help": "Decoder width."})
    z_dim: int = field(default=16, metadata={"help": "Latent channels."})
    dim_mult: list[int] = field(default_factory=lambda: [1, 2, 2], metadata={"help": "Widths of the three levels."})
    steps: int = field(default=4000, metadata={"help": "Training steps."})
    clip_start: int = field(default=1500, metadata={"help": "First step that sees clips instead of single frames."})
    batch_size: int = field(default=16, metadata={"help": "Crops per single-frame step."})
    clip_batch_size: int = field(default=4, metadata={"help": "Crops per clip step."})
    clip_frames: int = field(default=5, metadata={"help": "Pixel frames of a clip crop, 4k + 1."})
    crop: int = field(default=64, metadata={"help": "Side of a crop, pixels."})
    heatmap_share: float = field(default=0.2, metadata={"help": "Share of heat maps in a batch."})
    carried_share: float = field(default=0.0, metadata={"help": "Share of carried pieces in a batch."})
    photo_share: float = field(default=0.0, metadata={"help": "Share of Photo World in a batch; the rest is sprites."})
    photo_pool_clips: int = field(default=0, metadata={"help": "Photo World clips held in memory."})
    first_frame_weight: float = field(default=1.0, metadata={"help": "Weight of a clip's first frame in the loss."})
    pool_clips: int = field(default=1200, metadata={"help": "Sprite World clips held in memory."})
    pool_frames: int = field(default=17, metadata={"help": "Pixel frames per pooled clip, 4k + 1."})
    held_out_clips: int = field(default=16, metadata={"help": "Clips of each world that are validated on."})
    muon_lr: float = field(default=0.02, metadata={"help": "Learning rate of matrices and convolutions."})
    adamw_lr: float = field(default=2e-3, metadata={"help": "Learning rate of everything else."})
    warmup: int = field(default=30, metadata={"help": "Warm-up steps."})
    latent_noise: float = field(default=0.04, metadata={"help": "Noise added to the latent while training."})
    latent_penalty: float = field(default=1e-3, metadata={"help": "Weight of the mean squared latent."})
    ema_decay: float = field(default=0.995, metadata={"help": "Decay of the averaged weights."})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the decoder only."})
    init_from: str = field(default="", metadata={"help": "Folder of a VAE to start from instead of random weights."})
    inflate: bool = field(
        default=False, metadata={"help": "init_from has only seen single frames: start with each frame on its own."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of data order, crops and noise."})
    log_every: int = field(default=20, metadata={"help": "Steps between log rows."})
    save_every: int = field(default=200, metadata={"help": "Steps between saved states and validations."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_frames % 4 != 1 or self.pool_frames % 4 != 1 or self.clip_frames > self.pool_frames:
            raise ValueError("clip_frames and pool_frames: both must be 4k + 1 and clip_frames the smaller of the two")
        if not 0 <= self.heatmap_share < 1:
            raise ValueError(f"heatmap_share: {self.heatmap_share} is outside [0, 1)")

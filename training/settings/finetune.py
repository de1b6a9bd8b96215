"""Settings of stage 1."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.settings.scale import MuonConfig
from training.settings.tracks import TrackConfig


@dataclass
class FinetuneConfig(TrackConfig, MuonConfig):
    """Configuration of stage 1."""

    output_dir: str = field(metadata={"help": "Run folder: state, log, curves, sheets and the pipeline."})
    data: list[str] = field(default_factory=list, metadata={"help": "Folders or Hub names of precomputed latents."})
    vae: str = field(default="", metadata={"help": "VAE of a new model, or in place of init_from's."})
    init_from: str = field(default="", metadata={"help": "Pipeline to start from instead of random weights."})
    causal: bool = field(default=False, metadata={"help": "Block-causal with clean history instead of bidirectional."})
    num_layers: int = field(default=6, metadata={"help": "Transformer blocks of a new model."})
    num_heads: int = field(default=4, metadata={"help": "Attention heads of a new model."})
    head_dim: int = field(default=48, metadata={"help": "Channels per head of a new model."})
    ffn_dim: int = field(default=768, metadata={"help": "Width of the feed-forward layers of a new model."})
    sink_frames: int | None = field(
        default=None,
        metadata={"help": "First latents seen beyond the window, for ever; default: as init_from, else 0."},
    )
    control: str = field(
        default="", metadata={"help": "What is shown of the tracks, by name; default: as init_from, else heat."}
    )
    outline: str = field(
        default="", metadata={"help": "Folder of the network that knows outlines, for cutout; default: init_from's."}
    )
    image_fill: str = field(
        default="",
        metadata={
            "help": "Image slot after latent 0: noise, zeros, grey or picture; default: init_from's, else noise."
        },
    )
    gated_slots: bool = field(
        default=False, metadata={"help": "Begin from what the motion slot shows, and learn what to add; see collage."}
    )
    num_latents: int = field(default=5, metadata={"help": "Latent frames per clip; shorter clips train as they are."})
    steps: int = field(default=2000, metadata={"help": "Training steps."})
    batch_size: int = field(default=16, metadata={"help": "Clips per step and process."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per update."})
    sigma_shift: float = field(default=3.0, metadata={"help": "Shift of the sampled noise levels."})
    sigmas: list[float] = field(
        default_factory=list,
        metadata={"help": "Few-step schedule from 1 to 0: train on its levels alone and save it; empty = all levels."},
    )
    own_history: float = field(
        default=0.0, metadata={"help": "Share of clips that look back at the model's own rollout, not at the truth."}
    )
    mixed_precision: str = field(default="no", metadata={"help": "bf16 runs the packed pass in half precision."})
    first_latent_given: float = field(
        default=0.85, metadata={"help": "Share of clips whose latent 0 is the reference."}
    )
    motion_emphasis: float = field(
        default=0.0, metadata={"help": "Extra loss weight where something moves; 0 = Eq. 7."}
    )
    train_encoders: bool | None = field(
        default=None,
        metadata={"help": "Train the text and image encoders too; default: those that began here, as small ones do."},
    )
    text_dropout: float = field(default=0.1, metadata={"help": "Share of clips without a caption."})
    motion_dropout: float = field(default=0.05, metadata={"help": "Share of clips without tracks."})
    muon_lr: float = field(default=0.02, metadata={"help": "Learning rate of matrices."})
    adamw_lr: float = field(default=1e-3, metadata={"help": "Learning rate of everything else."})
    warmup: int = field(default=50, metadata={"help": "Warm-up steps."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping."})
    ema_decay: float = field(default=0.998, metadata={"help": "Decay of the averaged weights."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute activations to save memory."})
    num_inference_steps: int = field(default=12, metadata={"help": "Steps per latent saved in the scheduler config."})
    seed: int = field(default=0, metadata={"help": "Seed of data order and noise."})
    log_every: int = field(default=10, metadata={"help": "Steps between log rows."})
    save_every: int = field(default=200, metadata={"help": "Steps between saved states, pipelines and sheets."})
    validate: bool = field(default=True, metadata={"help": "Draw a validation sheet at every save."})

    def __post_init__(self) -> None:
        MuonConfig.__post_init__(self)
        TrackConfig.__post_init__(self)
        if not self.vae and not self.init_from:
            raise ValueError("vae or init_from: give the VAE of a new model, or a pipeline to start from")
        if self.num_latents < 2:
            raise ValueError(f"num_latents: {self.num_latents} is too short to move; use 2 or more")
        if self.sink_frames is not None and self.sink_frames < 0:
            raise ValueError(f"sink_frames: {self.sink_frames} is negative; 1 keeps the first latent in view, 0 none")
        if self.image_fill not in ("", "noise", "zeros", "grey", "picture"):
            raise ValueError(f"image_fill: {self.image_fill!r} is unknown; use noise, zeros, grey or picture")
        self.require_no_encoder(self.validate)
        if self.stored_tokens and (self.train_encoders or not self.init_from):
            raise ValueError("stored_tokens: encoders are not there to be trained; name init_from, no train_encoders")
        if self.own_history and not self.causal:
            raise ValueError("own_history: only a causal model has a history; set causal to true, or own_history to 0")

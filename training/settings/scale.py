"""What all stages share: how a run is spread over processes, optimized and reported."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.run.hub import HubConfig


TRACKERS = ("tensorboard", "wandb", "trackio")


@dataclass(kw_only=True)
class ScaleConfig(HubConfig):
    """The part of a stage's configuration that grows with the model."""

    shard: bool = field(
        default=False, metadata={"help": "Split the models over the processes (FSDP2), with AdamW; for large ones."}
    )
    lora_rank: int = field(default=0, metadata={"help": "Train a LoRA adapter of this rank instead of all weights."})
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999], metadata={"help": "AdamW's decay rates."})
    weight_decay: float = field(default=0.0, metadata={"help": "AdamW's weight decay."})
    stored_tokens: bool = field(
        default=False,
        metadata={"help": "Load no text and image encoder: take the tokens that training.precompute --tokens stored."},
    )
    report_to: str = field(
        default="", metadata={"help": "Tracker beside log.jsonl: tensorboard, wandb or trackio; empty = none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: {self.betas} are not two rates in [0, 1); use 0.9 0.999")
        if self.report_to and self.report_to not in TRACKERS:
            raise ValueError(f"report_to: {self.report_to!r} is unknown; use {', '.join(TRACKERS)}, or leave it empty")

    def require_no_encoder(self, validate: bool) -> None:
        """Refuse what would need an encoder in a run that loads none."""
        if self.stored_tokens and validate:
            raise ValueError("stored_tokens: a sheet's clips would have to be encoded; set validate to false")

    def require_whole_adapter(self) -> None:
        """Refuse an adapter in parts, for stages that switch it off and on."""
        if self.shard and self.lora_rank:
            raise ValueError("lora_rank: an adapter of this stage is for models that are whole; set shard to false")


@dataclass(kw_only=True)
class MuonConfig(ScaleConfig):
    """With a choice of optimizer."""

    optimizer: str = field(
        default="muon", metadata={"help": "muon (AdamW beside it), or adamw alone, as sharded models need."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer not in ("muon", "adamw"):
            raise ValueError(f"optimizer: {self.optimizer!r} is unknown; use muon or adamw")
        if self.shard and self.optimizer == "muon":
            raise ValueError("optimizer: muon needs whole matrices, which sharded models do not have; use adamw")

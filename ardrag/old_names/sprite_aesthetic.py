"""The name under which model cards of version 0.1 import `ardrag.judges.sprite_aesthetic`."""

from ardrag.judges.sprite_aesthetic import SpriteAestheticReward as SpriteAestheticReward

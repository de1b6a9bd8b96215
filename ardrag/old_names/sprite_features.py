"""The name under which model cards of version 0.1 import `ardrag.judges.sprite_features`."""

from ardrag.judges.sprite_features import load_features as load_features

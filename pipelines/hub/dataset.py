"""Datasets on the Hub: Sprite World as it is made, and what was saved on disk (latents, curated video, prompts)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from huggingface_hub import DatasetCard

from ardrag.worlds.sprites import build_dataset
from pipelines.hub.client import GENERATED, clear_errors


SPRITES = """# Sprite World

A procedural world with exact ground truth for motion-controlled video: sprites on soft backgrounds, moved along smooth
paths. Clip `index` of a split is a function of its number alone: `ardrag.worlds.sprites.make_clip(split, index)`.

| column | what |
|---|---|
| `frames` | uint8 `[T, H, W, 3]` |
| `xy`, `visible` | tracks `[P, T, 2]` in pixels, and whether the point can be seen `[P, T]` |
| `caption`, `categories`, `index` | text, kinds of motion, number of the clip |

```python
from datasets import load_dataset

clips = load_dataset("{repo_id}", split="{split}")
```

Made by `python -m pipelines.publish dataset sprites {repo_id} --split {split} --num_clips {count}`.
"""
SAVED = """# {name}

{count} rows with the columns {columns}, as `training/` reads them: `--data {repo_id}`.

```python
from datasets import load_dataset

rows = load_dataset("{repo_id}", split="{split}")
```
"""


def push_dataset(
    source: str, repo_id: str, split: str, num_clips: int, num_frames: int, private: bool | None = None
) -> str:
    """Push Sprite World (``source="sprites"``) or a folder that `Dataset.save_to_disk` wrote; returns the address.

    Raises:
        ValueError: if there is no such folder, the split is unknown, or the Hub refuses; local files stay.
    """
    if source == "sprites":
        data, text = build_dataset(split, num_clips, num_frames), SPRITES
    elif Path(source).is_dir():
        data, text = load_from_disk(source), SAVED
    else:
        raise ValueError(f"source: {source} is no folder; give `sprites` or what save_to_disk wrote")
    if not isinstance(data, Dataset):
        raise ValueError(f"source: {source} holds several splits; push them one by one")
    values: dict[str, Any] = {"name": repo_id.rpartition("/")[2], "repo_id": repo_id, "split": split}
    values |= {"count": len(data), "columns": ", ".join(f"`{name}`" for name in data.column_names)}
    with clear_errors(f"hub: {repo_id}"):
        done = data.push_to_hub(repo_id, split=split, private=private)
        card = DatasetCard.load(repo_id)
        if not card.text.strip() or GENERATED in card.text:  # a card that a person wrote stays
            card.text = f"\n\n{text.format(**values)}\n{GENERATED}\n"
            card.data.license = "apache-2.0" if source == "sprites" else card.data.to_dict().get("license")
            card.push_to_hub(repo_id, repo_type="dataset", commit_message="Card")
    return str(done.repo_url)

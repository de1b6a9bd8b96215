"""Putting things on the Hub: models, datasets, the Space.

    python -m pipelines.publish model runs/distill/pipeline you/ardrag-tiny
    python -m pipelines.publish dataset sprites you/sprite-world --num_clips 1000
    python -m pipelines.publish dataset runs/latents you/sprite-latents
    python -m pipelines.publish space you/ardrag --dry_run

``card`` and ``code`` write a model's card, or the code for those without this package, into its folder here. Log in
once with ``hf auth login``. Whatever is interrupted may be started again: files that are there are not sent again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.hub.client import link_or_copy, open_repository, push_folder
from pipelines.hub.model_card import model_card, read_facts
from pipelines.hub.remote_code import write_code
from pipelines.hub.repository import complete_repository
from pipelines.hub.space import check_space, space_files
from pipelines.record import REPOSITORY


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.publish", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model", help="push a saved pipeline, LoRA adapter or VAE with code and card")
    model.add_argument("folder", help="what save_pretrained or a run wrote")
    dataset = commands.add_parser("dataset", help="push Sprite World, or a dataset saved on disk")
    dataset.add_argument("source", help="sprites, or a folder written by save_to_disk (training.precompute)")
    dataset.add_argument("--split", default="train", help="split of Sprite World: train, validation or test")
    dataset.add_argument("--num_clips", type=int, default=1000, help="clips of Sprite World")
    dataset.add_argument("--num_frames", type=int, default=33, help="pixel frames of a clip")
    space = commands.add_parser("space", help="push the app with everything that it needs")
    space.add_argument("--dry_run", action="store_true", help="show the files and do nothing")
    for command in (model, dataset, space):
        command.add_argument("repo_id", help="user/name; made if it is not there")
        command.add_argument("--private", action="store_true", help="make it private if it is made")
    card = commands.add_parser("card", help="write the README.md of a model's folder")
    card.add_argument("--name", help="what from_pretrained is given in it (default: the folder)")
    for command in (card, commands.add_parser("code", help="write pipeline.py and its companions into a folder")):
        command.add_argument("folder", help="a saved pipeline")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 after one line about what the user can put right."""
    options = build_parser().parse_args(arguments)
    actions = {"model": publish_model, "dataset": publish_dataset, "space": publish_space}
    actions |= {"card": write_card, "code": print_code}
    try:
        actions[options.command](options)
    except ValueError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def existing(folder: str) -> Path:
    """The folder, or ValueError where there is none."""
    if not Path(folder).is_dir():
        raise ValueError(f"folder: {folder} does not exist; give what save_pretrained wrote")
    return Path(folder)


def publish_model(options: argparse.Namespace) -> None:
    """Push a folder with code and card, leaving it as it is here."""
    folder = existing(options.folder)
    repo_id = open_repository(options.repo_id, options.private or None)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ardrag-") as parent:
        parcel = Path(parent) / folder.name
        shutil.copytree(folder, parcel, copy_function=link_or_copy)
        complete_repository(parcel, repo_id)
        print(push_folder(parcel, repo_id))


def publish_dataset(options: argparse.Namespace) -> None:
    """Push a dataset."""
    from pipelines.hub.dataset import push_dataset

    private = options.private or None
    print(push_dataset(options.source, options.repo_id, options.split, options.num_clips, options.num_frames, private))


def publish_space(options: argparse.Namespace) -> None:
    """Push the app, or show what would be pushed."""
    files = space_files()
    check_space()
    if options.dry_run:
        print("\n".join(f"{size:>12,}  {name}" for name, size in files.items()))
        print(f"{sum(files.values()):>12,}  bytes in {len(files)} files would go to the Space {options.repo_id}")
        return
    with tempfile.TemporaryDirectory() as parcel:
        for name in files:
            target = Path(parcel) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(str(REPOSITORY / name), str(target))
        print(
            push_folder(
                parcel,
                options.repo_id,
                repo_type="space",
                space_sdk="gradio",
                private=options.private or None,
                commit_message="Upload the app",
                replaced=["*"],
            )
        )


def write_card(options: argparse.Namespace) -> None:
    """Write the card into a model's folder."""
    folder = existing(options.folder)
    text = model_card(folder, options.name or folder.as_posix(), read_facts(folder))
    (folder / "README.md").write_text(text, encoding="utf-8")


def print_code(options: argparse.Namespace) -> None:
    """Write the code into a model's folder."""
    print("\n".join(write_code(existing(options.folder))))


if __name__ == "__main__":
    sys.exit(main())

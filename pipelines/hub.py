"""To and from the Hub: fetching a pipeline, pushing a folder, and what goes wrong there in one sentence each.

Nothing here imports torch. The same code serves those who have this package and, flattened, those who have not
(`pipelines.remote_code`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_session, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


logger = logging.getLogger(__name__)
MODEL_INDEX = "model_index.json"
PIPELINE_FILE = "pipeline.py"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
STAMP = re.compile(r"# Generated from ardrag (\S+); the SHA-256 of what follows is ([0-9a-f]{64})\.\n")
LOG_IN = "log in with `hf auth login`"


def fetch_pipeline(name: str, **options: Any) -> Path:
    """Folder with the pipeline ``name``: itself if it is one, else downloaded from the Hub, or taken from the cache.

    Args:
        name: folder, or Hub name ``user/repository``.
        options: ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``, as in diffusers.

    Raises:
        ValueError: if there is no such pipeline, it cannot be had, or its weights are pickles; with the remedy.
    """
    local = Path(name)
    if local.exists():
        if not (local / MODEL_INDEX).is_file():
            raise ValueError(f"model: {name} has no model_index.json; give the folder that save_pretrained wrote")
        refuse_pickles(name, (path.relative_to(local).as_posix() for path in local.glob("*/*")))
        return local
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ValueError(f"model: {name} does not exist; give a folder or a Hub name such as user/ardrag-tiny")
    with clear_errors(f"model: {name}"):
        try:
            index = Path(hf_hub_download(name, MODEL_INDEX, **options))
        except RemoteEntryNotFoundError as error:
            raise ValueError(f"model: {name} has no model_index.json; it is no pipeline") from error
        # The commit that was just found, so that a push in between does not mix two versions.
        options["revision"] = index.parent.name
        folders = sorted(part for part, value in json.loads(index.read_text()).items() if isinstance(value, list))
        patterns = [f"{part}/*.{suffix}" for part in folders for suffix in ("json", "safetensors", "txt", "model")]
        folder = Path(snapshot_download(name, allow_patterns=[MODEL_INDEX, PIPELINE_FILE, *patterns], **options))
        if not (options.get("local_files_only") or constants.HF_HUB_OFFLINE):
            api = HfApi(token=options.get("token"))
            refuse_pickles(name, api.list_repo_files(name, revision=options["revision"]))
    return folder


def refuse_pickles(name: str, files: Iterable[str]) -> None:
    """Raise ValueError if a folder has weights that can only be had by running what somebody pickled."""
    suffixes: dict[str, set[str]] = {}
    for file in files:
        suffixes.setdefault(file.rpartition("/")[0], set()).add(Path(file).suffix)
    for folder, found in sorted(suffixes.items()):
        if found & set(PICKLES) and ".safetensors" not in found:
            kinds = ", ".join(sorted(found & set(PICKLES)))
            raise ValueError(
                f"model: {name} has weights in {folder or 'its root'} as {kinds} only, which may run any code when "
                "read; ask its author for safetensors"
            )


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    replaced: Sequence[str] = ("*.safetensors", "*.safetensors.index.json"),
    space_sdk: str | None = None,
) -> str:
    """Upload ``folder`` as one commit, into a repository that is made if needed; returns the commit's address.

    Files that the Hub has already, from an earlier or an interrupted upload, are not sent again. Files there that
    match ``replaced`` and are not in ``folder`` go: shards of another size would be loaded beside the new ones.

    Raises:
        ValueError: if the Hub refuses or cannot be reached, or the folder holds pickles. Local files stay as they are.
    """
    files = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
    pickles = [file for file in files if file.endswith(PICKLES)]
    if pickles:
        raise ValueError(f"folder: {folder} holds {pickles[0]}; pickles do not go to the Hub, write safetensors")
    with clear_errors(f"hub: {repo_id}", kept="; local files are as they were"):
        api = HfApi(token=token)
        url = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=space_sdk)
        done = api.upload_folder(
            repo_id=url.repo_id,
            repo_type=repo_type,
            folder_path=folder,
            commit_message=commit_message or f"Upload {Path(folder).name}",
            create_pr=create_pr,
            delete_patterns=list(replaced),
        )
    return str(done.commit_url)


def link_or_copy(source: str, target: str) -> str:
    """`shutil.copytree`'s way to put ``source`` at ``target`` without a second copy, where the disk can do so."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def open_repository(repo_id: str, private: bool | None = None, repo_type: str = "model") -> str:
    """Make a repository, or see that it can be written to, before hours are spent on what is to go there.

    Raises:
        ValueError: if the Hub refuses or cannot be reached.
    """
    with clear_errors(f"hub: {repo_id}"):
        return str(HfApi().create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id)


@contextmanager
def clear_errors(what: str, kept: str = "") -> Iterator[None]:
    """Within, whatever the Hub or the way to it refuses becomes a ValueError of one sentence with the remedy."""
    try:
        yield
    except (OSError, RuntimeError, HfHubHTTPError, transport_error()) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        raise ValueError(f"{what} {explain(cause)}{kept}") from error


def transport_error() -> type[Exception]:
    """What the client's HTTP library raises when the network fails (its name depends on the client's version)."""
    client = type(get_session())
    found: type[Exception] = import_module(client.__module__.split(".")[0]).HTTPError
    return found


def explain(error: BaseException) -> str:
    """One sentence for an error of the Hub's client, with the remedy."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    said = " ".join(str(getattr(error, "server_message", None) or error).split())
    if status == 401 and not isinstance(error, RepositoryNotFoundError | GatedRepoError):
        return f"refuses the token; {LOG_IN} again, or correct HF_TOKEN"
    if isinstance(error, GatedRepoError):
        return f"is gated; ask for access on its page and {LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"is not on the Hub, or is private; check the name, and {LOG_IN} if it is private"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision; give a branch, tag or commit of its page"
    if status in (402, 403) and re.search(r"storage|quota|limit|plan", said, flags=re.IGNORECASE):
        return f"has no room left ({said}); delete what is not needed or make the repository public"
    if status == 403:
        return f"may not be written to with this token ({said}); use a token with write access and your own namespace"
    if status == 429:
        return "is refused for now, too many requests; try again in a few minutes"
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return "is not whole in the cache, and the Hub is out of reach (or HF_HUB_OFFLINE is set); load it online once"
    if status is not None:
        return f"is refused by the Hub ({status}: {said}); try again later"
    return f"cannot be had ({type(error).__name__}: {said}); check the network and try again"


def code_hash(code: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(code.encode()).hexdigest()


def stamp_line(version: str, code: str) -> str:
    """First line of generated code, before ``code``."""
    return f"# Generated from ardrag {version}; the SHA-256 of what follows is {code_hash(code)}.\n"


def warn_of_changes(text: str, name: str, version: str | None = None) -> None:
    """Warn if generated code was changed by hand, or is of another ``version`` (None: any)."""
    stamp = STAMP.match(text)
    if stamp is None or code_hash(text[stamp.end() :]) != stamp[2]:
        logger.warning("%s: its code is not what its stamp says; somebody changed it, read it before use", name)
    elif version is not None and stamp[1] != version:
        logger.warning("%s: written by ardrag %s, loaded by %s; videos may differ", name, stamp[1], version)

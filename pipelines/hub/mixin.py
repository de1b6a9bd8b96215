"""Loading a pipeline from a folder or the Hub and pushing it there, with the checks that diffusers leaves out."""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from diffusers import ModelMixin, SchedulerMixin

from ardrag.flow import FewStepScheduler
from ardrag.home import __version__
from ardrag.saving import whole_folder
from ardrag.transformer import CausalWanTransformer
from pipelines.hub.adapters import AdapterMixin
from pipelines.hub.client import (
    MODEL_INDEX,
    PIPELINE_FILE,
    fetch_pipeline,
    open_repository,
    push_folder,
    warn_of_changes,
)
from pipelines.hub.complete import check_tensors


CONFIGS: dict[str, tuple[type[ModelMixin] | type[SchedulerMixin], str]] = {
    "transformer": (CausalWanTransformer, "config.json"),
    "scheduler": (FewStepScheduler, "scheduler_config.json"),
}
"""Components of a class of ours, and the files of their configurations."""
HUB_OPTIONS = ("revision", "token", "cache_dir", "force_download", "local_files_only")


class HubMixin(AdapterMixin):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` of a diffusers pipeline; comes before it in the bases."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load a pipeline from a folder or the Hub, always with this package's code and from safetensors.

        Takes the options of `DiffusionPipeline.from_pretrained`; ``revision`` pins a version, ``subfolder`` says where
        in the folder or repository the pipeline lies, and with ``HF_HUB_OFFLINE=1`` only the cache is asked. For code
        that comes with a repository see `DiffusionPipeline`'s own ``custom_pipeline``.

        Raises:
            ValueError: if there is no such pipeline, it cannot be had, or it is not one that this version can load.
        """
        name = str(pretrained_model_name_or_path)
        options = {key: kwargs.pop(key) for key in (*HUB_OPTIONS, "subfolder") if key in kwargs}
        folder = fetch_pipeline(name, **options)
        check_saved(name, folder, cls.__name__, skip=kwargs)
        code = folder / PIPELINE_FILE
        if code.is_file():
            warn_of_changes(code.read_text(encoding="utf-8"), name, __version__)
        try:
            pipeline = super().from_pretrained(folder, use_safetensors=True, **kwargs)
        except (OSError, KeyError) as error:
            raise ValueError(f"model: {name} cannot be loaded: {error}") from error
        if "quantization_config" not in kwargs:
            check_tensors(name, folder, pipeline, kwargs, kwargs.get("variant"))
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As diffusers' own, but components of a class of ours are looked up here.

        A repository may carry code for those who do not have this package. diffusers would prefer that code to ours
        wherever a file of that name lies beside the weights. It asks the module named here for base classes too.
        """
        config = super().load_config(*args, **kwargs)
        for component, (kind, _) in CONFIGS.items():
            if isinstance(config, dict) and config.get(component, [None, None])[1] == kind.__name__:
                config[component] = [__name__, kind.__name__]
        return config

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write the pipeline as a diffusers folder, in the place of whatever model lay there, whole or not at all.

        With ``push_to_hub`` also code and card, and the folder's upload. Adapters are not part of it: the log says so.

        Raises:
            ValueError: if pickles are asked for, the folder cannot be written, or the Hub refuses (what was written
                stays then).
        """
        if not safe_serialization:
            raise ValueError("safe_serialization: pickled weights are not written; leave it at True")
        folder = Path(save_directory).expanduser()
        with whole_folder(folder, kwargs.get("variant")) as fresh:
            super().save_pretrained(fresh, **kwargs)
        if push_to_hub:
            name = open_repository(repo_id or folder.name, private, token)
            self._publish(folder, name, token, commit_message, create_pr)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
        **kwargs: Any,
    ) -> str:
        """Upload weights, code for those without this package, and a model card as one commit; returns its address.

        Args:
            repo_id: ``user/name``; made if it is not there.
            commit_message, private, token, create_pr: as for any model of diffusers.
            kwargs: of `save_pretrained`: ``variant``, ``max_shard_size``.

        Raises:
            ValueError: if the Hub refuses or cannot be reached, with the remedy.
        """
        name = open_repository(repo_id, private, token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **kwargs)
            return self._publish(Path(folder), name, token, commit_message, create_pr)

    def _publish(
        self, folder: Path, repo_id: str, token: str | bool | None, commit_message: str | None, create_pr: bool
    ) -> str:
        """Put code and card beside the weights and upload the folder."""
        try:  # by name: this file also runs where the package is not, and diffusers reports what such a file imports
            repository = import_module("ardrag.home").import_part("pipelines.hub.repository")
        except ImportError as error:
            raise ValueError("push_to_hub: needs the ardrag package itself; run where it can be imported") from error
        repository.complete_repository(folder, repo_id)
        message = commit_message or f"Upload {type(self).__name__}"
        return push_folder(folder, repo_id, token=token, commit_message=message, create_pr=create_pr)


def check_saved(name: str, folder: Path, class_name: str, skip: Any = ()) -> None:
    """Check what a pipeline's configurations say before anything is loaded by them.

    Args:
        name: what the user called it.
        folder: where it lies.
        class_name: the pipeline class that it must be of.
        skip: components that come from elsewhere.

    Raises:
        ValueError: if it is another kind of pipeline, or was saved by a version that knows more than this one.
    """
    index = json.loads((folder / MODEL_INDEX).read_text(encoding="utf-8"))
    if index.get("_class_name") != class_name:
        raise ValueError(f"model: {name} is a {index.get('_class_name')}, not an {class_name}; load it as what it is")
    for component, (kind, file) in CONFIGS.items():
        path = folder / component / file
        if component in skip or not path.is_file():
            continue
        fields = {field for field in json.loads(path.read_text(encoding="utf-8")) if not field.startswith("_")}
        unknown = fields - set(inspect.signature(kind.__init__).parameters)
        if unknown:
            raise ValueError(
                f"model: {name} has {', '.join(sorted(unknown))} in {component}/{file}, which ardrag {__version__} "
                "does not know; update this package, or give a revision from before"
            )

"""Answers of models, for when they are asked the same again: a second take on a picture, the empty prompt.

    latent = answer(vae, digest(pixels), device, lambda: encode(pixels))

An answer is known by what was asked, number for number, and is the one that was given then. Answers of a model are
forgotten when its weights, its adapters, its dtype or the device it answers on change, when it is gone, and where they
are more than `MAX_ANSWER_BYTES` together: those first that nobody asked for. Two things leave no trace: writing to
`Tensor.data`, and casting weights to fewer bits and back before the next question. Who does that hears old answers.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn


Answer = TypeVar("Answer")
MAX_ANSWER_BYTES = 64 << 20
"""Of the answers of one model: sixteen prompts of 512 tokens of UMT5-XXL, a thousand pictures of the tiny VAE."""


class WeightsThen:
    """The weights of a model as they were, without keeping them in memory.

    Offloading moves them without changing them: the parameters stay the same objects, or are placeholders between two
    calls, which say nothing.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._marks = [_mark(part) for part in parts]

    def are(self, parts: Sequence[Tensor]) -> bool:
        """Whether these parameters and buffers are still the same."""
        return len(parts) == len(self._marks) and all(
            version == _version(part) and dtype == part.dtype and (ref is None or ref() is part)
            for (ref, version, dtype), part in zip(self._marks, parts, strict=True)
        )


class Answers:
    """What a model with certain weights answered on one device, the latest `MAX_ANSWER_BYTES` of it."""

    def __init__(self, parts: Sequence[Tensor], device: torch.device) -> None:
        self._weights, self._device = WeightsThen(parts), device
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def are_of(self, parts: Sequence[Tensor], device: torch.device) -> bool:
        """Whether a model of these parameters and buffers would still answer so."""
        return device == self._device and self._weights.are(parts)

    def find(self, question: Hashable) -> Any:
        """The answer to a question, or None."""
        if question in self._kept:
            self._kept.move_to_end(question)
        return self._kept.get(question)

    def keep(self, question: Hashable, given: Any) -> None:
        """Keep an answer, which has ``nbytes``."""
        self._kept[question] = given
        while sum(kept.nbytes for kept in self._kept.values()) > MAX_ANSWER_BYTES:
            self._kept.popitem(last=False)


_answers: weakref.WeakKeyDictionary[nn.Module, Answers] = weakref.WeakKeyDictionary()
_answers_lock = threading.Lock()


def digest(*asked: Tensor) -> bytes:
    """A name of tensors by their numbers."""
    name = hashlib.blake2b(digest_size=20)
    for part in asked:
        name.update(f"{part.dtype} {list(part.shape)}".encode())
        name.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return name.digest()


def answer(model: nn.Module, asked: bytes, device: torch.device, make: Callable[[], Answer]) -> Answer:
    """What ``make()`` gives, which is what ``model`` says on ``device`` to what was ``asked`` (its `digest`).

    It is the same object each time and has ``nbytes``, as tensors have; others, who may write to it, get a copy. Where
    gradients are on, in training, and for weights made under `torch.inference_mode`, whose changes nobody counts, it
    is made every time.
    """
    if torch.is_grad_enabled() or model.training:
        return make()
    parts = list(_tensors_of(model))
    if any(part.is_inference() for part in parts):
        return make()
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    question = (asked, autocast)
    with _answers_lock:
        known = _answers.get(model)
        if known is None or not known.are_of(parts, device):
            known = _answers[model] = Answers(parts, device)
        given = known.find(question)
    if given is None:
        given = make()
        with _answers_lock:
            known.keep(question, given)
    found: Answer = given
    return found


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers; what two modules share comes twice: `Module.parameters` takes long to avoid it."""
    for module in model.modules():
        yield from (part for part in module._parameters.values() if part is not None)
        yield from (part for part in module._buffers.values() if part is not None)


def _version(part: Tensor) -> int:
    return 0 if part.is_meta else part._version


def _mark(part: Tensor) -> tuple[Any, int, torch.dtype]:
    return None if part.is_meta else weakref.ref(part), _version(part), part.dtype

"""Answers are found again as long as the model would give them, and not longer."""

import weakref

import pytest
import torch
from torch import nn

import ardrag.known.answers as answers
from ardrag.known.answers import WeightsThen, answer, digest


CPU = torch.device("cpu")


class Counting:
    """A model that counts how often it is asked."""

    def __init__(self):
        self.model, self.asked = nn.Linear(3, 2).eval(), 0

    @torch.no_grad()
    def __call__(self, numbers, device=CPU):
        def make():
            self.asked += 1
            return self.model(numbers)

        return answer(self.model, digest(numbers), device, make)


def test_the_same_question_is_asked_once():
    ask, numbers = Counting(), torch.randn(4, 3)
    first = ask(numbers)
    assert ask(numbers.clone()) is first and ask.asked == 1
    assert ask(numbers + 1) is not first and ask.asked == 2


def test_questions_differ_by_shape_dtype_and_order():
    numbers = torch.zeros(2, 3)
    others = [numbers.T, numbers.double(), numbers.half(), torch.zeros(6), -numbers]
    names = {digest(other) for other in (numbers, *others)} | {digest(numbers, numbers), digest()}
    assert len(names) == 8 and digest(numbers.T.contiguous()) == digest(numbers.T)
    assert digest(numbers, numbers + 1) != digest(numbers + 1, numbers)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.weight.mul_(2),
        lambda model: model.load_state_dict(nn.Linear(3, 2).state_dict()),
        lambda model: setattr(model, "bias", nn.Parameter(torch.ones(2))),
        lambda model: model.register_buffer("more", torch.ones(1)),
        lambda model: model.bfloat16(),
    ],
    ids=["in place", "loaded", "replaced", "grown", "cast"],
)
@torch.no_grad()
def test_a_changed_model_is_asked_again(change):
    ask, numbers = Counting(), torch.randn(1, 3)
    before = ask(numbers)
    gone = weakref.ref(before)
    del before
    change(ask.model)
    numbers = numbers.to(ask.model.weight.dtype)
    assert torch.equal(ask(numbers), ask.model(numbers)) and ask.asked == 2
    assert gone() is None, "what the old weights said is not kept"


@torch.no_grad()
def test_an_optimizer_step_is_a_change():
    ask, numbers = Counting(), torch.randn(1, 3)
    ask(numbers)
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        for parameter in ask.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        kind(ask.model.parameters(), lr=0.1).step()
        assert torch.equal(ask(numbers), ask.model(numbers))
    assert ask.asked == 3


def test_moving_weights_out_and_in_is_no_change():
    """What offloading does: the same parameters, elsewhere; or placeholders between two calls."""
    model = nn.Linear(3, 2)
    weights = WeightsThen([*model.parameters()])
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    assert weights.are([*model.parameters()]) and not weights.are([*nn.Linear(3, 2).parameters()])
    placeholders = WeightsThen([*model.to("meta").parameters()])
    again = [*nn.Linear(3, 2, device="meta").parameters()]
    assert placeholders.are(again) and not weights.are(again) and not placeholders.are(again[:1])


@torch.no_grad()
def test_another_device_forgets():
    ask, numbers = Counting(), torch.randn(1, 3)
    ask(numbers)
    ask(numbers, torch.device("cuda"))
    ask(numbers)
    assert ask.asked == 3


@torch.no_grad()
def test_autocast_is_another_question():
    ask, numbers = Counting(), torch.randn(1, 3)
    plain = ask(numbers)
    with torch.autocast("cpu", torch.bfloat16):
        assert ask(numbers).dtype == torch.bfloat16
    assert ask(numbers) is plain


def test_gradients_and_training_are_never_kept():
    ask, numbers = Counting(), torch.randn(1, 3)
    for _ in range(2):
        assert answer(ask.model, digest(numbers), CPU, lambda: ask.model(numbers)).requires_grad
    ask.model.train()
    ask(numbers), ask(numbers)
    assert ask.asked == 2 and ask.model not in answers._answers


def test_weights_whose_changes_nobody_counts_keep_nothing():
    with torch.inference_mode():
        ask = Counting()
    ask(torch.ones(1, 3)), ask(torch.ones(1, 3))
    assert ask.asked == 2


def test_bounded_and_the_latest_stay(monkeypatch):
    ask = Counting()
    monkeypatch.setattr(answers, "MAX_ANSWER_BYTES", 3 * 2 * 4)
    for value in (0.0, 1.0, 2.0, 0.0, 3.0):  # 0 is asked for again before 3 pushes one out
        ask(torch.full((1, 3), value))
    assert ask.asked == 4
    ask(torch.full((1, 3), 0.0))
    assert ask.asked == 4
    ask(torch.full((1, 3), 1.0))
    assert ask.asked == 5


def test_answers_go_with_their_model():
    ask = Counting()
    gone = weakref.ref(ask(torch.ones(1, 3)))
    del ask
    assert gone() is None

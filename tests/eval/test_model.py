"""Which model an evaluation is about."""

import pytest

from eval.model import with_model_named


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["folder", "--seed", "1"], ["--model", "folder", "--seed", "1"]),
        (["--model", "folder"], ["--model", "folder"]),
        (["--seed", "1"], ["--seed", "1"]),
        ([], []),
    ],
)
def test_a_command_line_may_begin_with_the_model(given, named):
    assert with_model_named(given) == named and given is not with_model_named(given)

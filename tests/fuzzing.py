"""Damaged files: what people's files may become on their way, and what strangers may make of them."""

import os
import resource
import time
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


EXAMPLES = int(os.environ.get("ARDRAG_FUZZ", "1000"))
"""Inputs of each kind; `docs/security.md` says how many its figures are of."""
LONGEST = 2.0
"""Seconds of processor time that one input may take."""

fuzz = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def memory_before() -> float:
    """`peak_memory`, once Hypothesis has read all modules that are there for its first examples."""
    few = settings(fuzz, max_examples=50)
    few(given(st.tuples(st.integers(), st.floats(), st.text(), st.binary()))(lambda drawn: None))()
    return peak_memory()


def peak_memory() -> float:
    """Peak resident memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@st.composite
def damaged(draw: st.DrawFn, samples: dict[str, bytes]) -> tuple[str, bytes]:
    """One of the samples, whole, cut, with bytes changed, put in or taken out, or with a part of another in it."""
    name = draw(st.sampled_from(sorted(samples)))
    content = bytearray(samples[name])
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "cut", "put", "take", "repeat", "splice"]))
        if kind == "change" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "put":
            content[at:at] = draw(st.binary(max_size=12))
        elif kind == "take":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "repeat":
            content[at:at] = content[at : at + 64] * draw(st.integers(1, 20))
        else:
            other = samples[draw(st.sampled_from(sorted(samples)))]
            content[at : at + 64] = other[at : at + draw(st.integers(1, 256))]
    return name, bytes(content)


def refused_or_read(read: Callable[[], object]) -> bool:
    """Whether it could be read; anything but a `ValueError` of one line, or too much time, is a failure."""
    started = time.process_time()
    try:
        read()
        good = True
    except ValueError as error:
        good = False
        assert str(error)
    assert time.process_time() - started < LONGEST
    return good

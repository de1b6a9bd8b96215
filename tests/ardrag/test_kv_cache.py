"""The ring buffer on its own: what it shows, what it forgets, how far it goes back."""

import pytest
import torch

from ardrag.kv_cache import MAX_KEPT, KVCache


TOKENS, LAYERS = 2, 2
SIZES = {"num_layers": LAYERS, "batch_size": 1, "num_heads": 1, "head_dim": 2, "tokens_per_frame": TOKENS}


def make(window=3, chunk=1, **options):
    """A cache in whose buffers lies what nobody wrote; were it read, it would show in all numbers."""
    cache = KVCache(**SIZES, window_frames=window, chunk_frames=chunk, **options)
    for buffers in cache._buffers():
        for buffer in buffers:
            buffer.fill_(float("nan"))
    return cache


def chunk_of(start, count, mark=0.0):
    """Keys of latent frames `start..`, every entry of a frame being its index."""
    frames = torch.arange(start, start + count, dtype=torch.float32).repeat_interleave(TOKENS) + mark
    return frames[None, :, None, None].expand(1, -1, 1, 2)


def step(cache, count, mark=0.0):
    """Writes one chunk in all layers, appends it and returns what the last layer saw."""
    key = chunk_of(cache.position, count, mark)
    for layer in range(LAYERS):
        keys, values = cache.overwrite(layer, key, -key)
        assert torch.equal(keys, -values)
    seen = keys.clone()
    cache.append(count)
    return seen


def frames_in(keys):
    return sorted(set(keys[0, :, 0, 0].tolist()))


@pytest.mark.parametrize("chunk, first, window", [(1, 1, 3), (1, 1, 7), (3, 3, 7), (3, 1, 2), (2, 1, 5)])
def test_shows_the_window_and_the_chunk_itself(chunk, first, window):
    cache = make(window, chunk)
    for start in [0, *range(first, 40, chunk)]:
        assert cache.position == start
        count = chunk if start else first
        seen = step(cache, count)
        assert frames_in(seen) == list(range(max(0, start - window), start + count))
        assert seen.shape[1] == TOKENS * len(frames_in(seen))


def test_returns_views_and_never_grows():
    cache = make()
    size = cache.nbytes
    for _ in range(50):
        step(cache, 1)
    first, _ = cache.overwrite(0, chunk_of(50, 1), chunk_of(50, 1))
    again, _ = cache.overwrite(0, chunk_of(50, 1, mark=0.5), chunk_of(50, 1))
    assert first.data_ptr() == again.data_ptr() and cache.nbytes == size
    assert 50.5 in frames_in(first) and 50.0 not in frames_in(first)


def test_overwrite_without_append_leaves_the_context_alone():
    cache, other = make(), make()
    for _ in range(9):
        step(other, 1)
        for mark in (0.1, 0.2, 0.3):
            cache.overwrite(0, chunk_of(cache.position, 1, mark), chunk_of(cache.position, 1))
        step(cache, 1)
    assert torch.equal(step(cache, 1), step(other, 1))


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("history, position, back", [(0, 3, 0), (6, 30, 24), (6, 6, 0), (9, 12, 3), (30, 24, 0)])
def test_rollback_is_as_if_never_gone(chunk, history, position, back):
    cache, straight = (make(3, chunk, history_frames=history) for _ in range(2))
    while straight.position < back:
        step(straight, chunk)
    while cache.position < back:
        step(cache, chunk)
    while cache.position < position:
        step(cache, chunk, mark=0.5)
    cache.rollback(back)
    for _ in range(8):
        assert torch.equal(step(cache, chunk), step(straight, chunk))
    assert cache.position == straight.position


def test_rollback_twice_within_history():
    cache = make(history_frames=4)
    for _ in range(20):
        step(cache, 1)
    cache.rollback(17)
    step(cache, 1)
    cache.rollback(16)
    assert cache.earliest == 16
    assert frames_in(step(cache, 1)) == [13, 14, 15, 16]


def test_rollback_names_what_is_possible():
    cache = make(history_frames=4)
    for _ in range(20):
        step(cache, 1)
    with pytest.raises(ValueError, match=r"can go to 16\.\.20.*history_frames \(now 4\)"):
        cache.rollback(15)
    with pytest.raises(ValueError, match=r"16\.\.20"):
        cache.rollback(21)
    cache.rollback(20)


def test_without_history_rollback_works_until_the_window_slides():
    cache = make(window=3)
    for _ in range(3):
        step(cache, 1)
    assert cache.earliest == 0
    step(cache, 1)
    assert cache.earliest == cache.position == 4


def test_fork_is_independent():
    cache = make(history_frames=2)
    for _ in range(6):
        step(cache, 1)
    text = torch.zeros(1)
    assert not cache.use_context("text", text)
    branch = cache.fork()
    branch.set_context(0, "text", (text, text))
    for _ in range(3):
        step(branch, 1, mark=0.5)
    assert cache.position == 6 and cache.context(0, "text") is None
    assert frames_in(step(cache, 1)) == [3, 4, 5, 6]
    assert frames_in(step(branch, 1)) == [6.5, 7.5, 8.5, 9]


def test_reset_empties():
    cache = make()
    cache.use_context("text", torch.zeros(1))
    for _ in range(5):
        step(cache, 1)
    cache.reset()
    assert cache.position == cache.earliest == 0
    assert frames_in(step(cache, 1)) == [0]


def test_sink_stays_and_moves_up_to_the_window():
    cache = make(window=2, sink_frames=2, shift_keys=lambda keys, frames: keys + 100 * frames)
    seen = [frames_in(cache_step) for cache_step in (_sink_step(cache) for _ in range(7))]
    assert seen[4] == [0, 1, 2, 3, 4]
    assert seen[5] == [3, 4, 5, 100, 101]
    assert seen[6] == [4, 5, 6, 200, 201]


def _sink_step(cache):
    key = chunk_of(cache.position, 1)
    keys, _ = cache.overwrite(0, key, key)
    seen = keys.clone()
    cache.append(1)
    return seen


def test_context_is_kept_for_the_same_tensor_only():
    cache = make()
    prompt, other = torch.zeros(1), torch.zeros(1)
    assert not cache.use_context("text", prompt)
    for layer in range(LAYERS):
        assert not cache.use_context("text", prompt)
        cache.set_context(layer, "text", (prompt, prompt))
    assert cache.use_context("text", prompt)
    assert not cache.use_context("text", other) and cache.context(0, "text") is None
    cache.reset_context()
    assert not cache.use_context("text", prompt)


def test_what_a_level_makes_is_made_once_for_each_tensor_and_layer():
    cache, made = make(), []

    def double(level):
        made.append(level.item())
        return 2 * level

    first, second = torch.tensor(1.0), torch.tensor(3.0)
    for _ in range(2):
        results = [cache.kept(level, layer, double).item() for level in (first, second) for layer in (None, 0)]
        assert results == [2, 2, 6, 6]
    assert made == [1, 1, 3, 3]
    twin = cache.fork()
    twin.kept(first, 1, double)
    cache.kept(first, 1, double)
    assert made == [1, 1, 3, 3, 1, 1], "a fork and its origin share what was made before, nothing after"
    cache.reset_context()
    cache.kept(first, None, double)
    assert len(made) == 7


def test_levels_of_a_long_schedule_do_not_pile_up():
    cache = make()
    levels = [torch.tensor(float(i)) for i in range(2 * MAX_KEPT)]
    for level in levels:
        assert cache.kept(level, 0, torch.clone) == level
    assert len(cache._kept) == MAX_KEPT
    assert cache.kept(levels[0], 0, torch.clone) == 0


def test_may_be_made_under_inference_mode():
    with torch.inference_mode():
        cache = make()
        branch = cache.fork()
    step(cache, 1)
    step(branch, 1)


def test_refuses_gradients():
    cache = make()
    key = torch.zeros(1, TOKENS, 1, 2, requires_grad=True)
    with pytest.raises(ValueError, match="no_grad"):
        cache.overwrite(0, key, key)
    with torch.no_grad():
        cache.overwrite(0, key, key)


@pytest.mark.parametrize(
    "key, match",
    [
        (torch.zeros(1, TOKENS, 1, 2, dtype=torch.float64), "float64"),
        (torch.zeros(1, TOKENS + 1, 1, 2), "resolution"),
        (torch.zeros(2, TOKENS, 1, 2), "batch size"),
        (torch.zeros(1, 2 * TOKENS, 1, 2), "chunks of 1"),
    ],
)
def test_refuses_what_does_not_fit(key, match):
    with pytest.raises(ValueError, match=match):
        make().overwrite(0, key, key)


def test_a_shorter_chunk_is_refused_once_the_window_slides():
    cache = make(window=3, chunk=2)
    for _ in range(2):
        step(cache, 2)
    with pytest.raises(ValueError, match="up to position 3"):
        cache.check_chunk(1)


@pytest.mark.parametrize("name, value", [("window", 0), ("chunk", 0), ("sink_frames", -1), ("history_frames", -1)])
def test_refuses_impossible_sizes(name, value):
    with pytest.raises(ValueError, match=name):
        make(**{name: value})


def test_sink_needs_a_way_to_turn_keys():
    with pytest.raises(ValueError, match="new_cache"):
        make(sink_frames=1)

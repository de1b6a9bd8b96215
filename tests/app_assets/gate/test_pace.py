"""A page is never slowed down; who floods is heard at a bounded rate, and who was silent may say much at once."""

from app_assets.gate.pace import BURST, MESSAGE_COST, PER_SECOND, Pace


def test_a_page_that_drags_is_never_slowed_down():
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(60 * 600):  # ten minutes of sixty messages a second
        now[0] += 1 / 60
        assert pace.wait(200) == 0


def test_a_flood_is_heard_at_a_bounded_rate():
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(20_000):
        now[0] += pace.wait(100)
    assert now[0] == ((MESSAGE_COST + 100) * 20_000 - BURST) / PER_SECOND
    before = now[0]
    now[0] += pace.wait(1 << 20)
    assert now[0] - before > 5


def test_silence_is_worth_a_burst_and_no_more():
    now = [0.0]
    pace = Pace(lambda: now[0])
    now[0] = 1e6
    assert pace.wait(int(BURST) - MESSAGE_COST) == 0
    assert pace.wait(MESSAGE_COST) == 2 * MESSAGE_COST / PER_SECOND

"""Which requests are sampled."""

from hypothesis import given
from hypothesis import strategies as st

from headwatch.sampling import is_sampled

rates = st.floats(0.0, 1.0)


@given(st.text(), rates, rates)
def test_a_request_sampled_at_a_rate_is_sampled_at_every_higher_rate(key: str, one: float, other: float):
    low, high = sorted((one, other))
    assert is_sampled(key, high) or not is_sampled(key, low)


@given(st.text())
def test_rate_0_samples_nothing_and_rate_1_everything(key: str):
    assert not is_sampled(key, 0.0)
    assert is_sampled(key, 1.0)


def test_the_share_sampled_is_the_rate():
    sampled = sum(is_sampled(f"chatcmpl-{number}", 0.1) for number in range(20_000))
    assert 1_850 < sampled < 2_150  # 3.5 sigma


def test_the_decision_is_the_same_in_every_process():
    """The values are pinned: another hash would let replicas of two releases disagree."""
    assert [is_sampled(key, 0.5) for key in ("a", "b", "c", "d", "e", "f")] == [True, False, True, False, True, True]

import pytest

from ownlm.score.verdict import Verdict


def test_all_checks_pass() -> None:
    assert Verdict.of({"compiles": True, "ends": True}) == Verdict(True, (), 1.0)


def test_failed_checks_are_named_and_the_value_is_their_mean() -> None:
    verdict = Verdict.of({"compiles": True, "ends": False, "f1": 0.5})
    assert verdict == Verdict(False, ("ends", "f1"), 0.5)


def test_a_hard_condition_takes_the_value_away() -> None:
    assert Verdict.of({"ends": True}).and_also("copied", False) == Verdict(False, ("copied",), 0.0)
    assert Verdict.of({"ends": True}).and_also("copied", True).passed


def test_values_outside_zero_and_one_are_refused() -> None:
    with pytest.raises(ValueError):
        Verdict(True, (), 1.5)

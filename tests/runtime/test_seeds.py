"""Seeds depend on names alone."""

from __future__ import annotations

from ownlm.runtime.seeds import derive_seed


def test_seeds_are_stable_distinct_and_fit_63_bits() -> None:
    assert derive_seed(7, "sft", 3) == derive_seed(7, "sft", 3)
    seeds = {derive_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_borders_between_parts_count() -> None:
    assert derive_seed("ab", "c") != derive_seed("a", "bc")

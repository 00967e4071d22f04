"""Many comparisons: Holm against closed testing, letters against their definition."""

from __future__ import annotations

from itertools import combinations
from string import ascii_lowercase

from hypothesis import given
from hypothesis import strategies as st

from mia_bench.statistics import compact_letters, holm
from mia_bench.statistics.letters import share_a_letter

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def test_holms_adjustment_of_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [0.03, 0.06, 0.06, 0.02]
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]


@given(p_values)
def test_holm_is_closed_testing_with_bonferroni(values: list[float]) -> None:
    """A hypothesis is rejected if every set of hypotheses that holds it is, by Bonferroni."""
    everything = range(len(values))
    sets = [set(chosen) for size in everything for chosen in combinations(everything, size + 1)]
    for number, adjusted in enumerate(holm(values)):
        holding = [min(1.0, len(one) * min(values[i] for i in one)) for one in sets if number in one]
        assert adjusted == max(holding)


names = list("ABCDEFG")


@given(st.sets(st.sampled_from(list(combinations(names, 2)))))
def test_two_share_a_letter_unless_they_differ(different: set[tuple[str, str]]) -> None:
    letters = compact_letters(names, different)
    assert all(letters.values())
    for one, other in combinations(names, 2):
        assert bool(set(letters[one]) & set(letters[other])) == ((one, other) not in different)
    used = sorted(set("".join(letters.values())))
    assert used == list(ascii_lowercase[: len(used)])
    for letter in used:  # none can be left out
        left = {name: set(own) - {letter} for name, own in letters.items()}
        together = [pair for pair in combinations(names, 2) if pair not in different]
        assert not (all(left.values()) and all(left[one] & left[other] for one, other in together))


def test_letters_follow_the_order_of_the_table() -> None:
    assert compact_letters("ABCD", [("A", "D"), ("C", "A"), ("B", "D")]) == {
        "A": "a",
        "B": "ab",
        "C": "bc",
        "D": "c",
    }
    assert compact_letters("AB", []) == {"A": "a", "B": "a"}
    assert compact_letters("", []) == {}
    many = [str(number) for number in range(30)]
    assert compact_letters(many, list(combinations(many, 2)))["29"] == "d1"


def test_letters_are_compared_whole() -> None:
    assert share_a_letter("ab1", "b1c")
    assert not share_a_letter("a1", "b1")
    assert not share_a_letter("a", "a1")
    assert not share_a_letter("", "")

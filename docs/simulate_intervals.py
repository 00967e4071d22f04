"""How often the intervals of rows and differences hold the true value, and how wide they are.

    python docs/simulate_intervals.py                 the tables of docs/statistics.md, minutes on one core
    python docs/simulate_intervals.py --components    the variances on the boards, from leaderboards/results

Draws sections of a board, seven rows each, from known models, and computes their intervals with the functions
that boards use. The ideal width is that of Student's interval of someone who knows all but how much classes
vary, and estimates this from the classes of the row. The last table has single shares near 0 and 1, beside
intervals of someone who knows that, too.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from scipy import special

from mia_bench.statistics import (
    Effect,
    below_median,
    bounded_interval,
    crossed_means,
    design_effect,
    holm,
    median_interval,
    proportion_interval,
    weighted,
)

SEEDS = (3, 5, 10)
CLASSES = (5, 20, 60, 158, 500)
ROWS = 7
IMAGES = 8
GALLERY = 1_062
FEW_CLASSES, MORE_SECTIONS = 20, 5
"""Tables of few classes are cheap: of these so many times as many sections are drawn."""

NEAR_BOUNDS = (0.01, 0.02, 0.03, 0.05, 0.95, 0.97, 0.98)
"""True shares that few samples can't tell from 0 or 1."""

LOGITS = (0.01, 1.5, 0.5)
"""Variances of the logits of shares: of seeds, of classes, of both together."""

EXACT_DRAWS = 10_000
"""From which the distribution of hits is known."""

REAL_CLASSES = 1_000_000
"""Draws from which the true value is computed."""


@dataclass(frozen=True)
class Drawn:
    """A section.

    Attributes:
        tables: of each row, ``(S, C)``.
        values: of each row.
        intervals: of each row.
        found: whether the section finds any difference, by Holm's rule.
    """

    tables: list[np.ndarray]
    values: list[float]
    intervals: list[tuple[float, float]]
    found: bool = False


Draw = Callable[[np.random.Generator, int, int], Drawn]


@dataclass(frozen=True)
class Scenario:
    """A model of a section.

    Attributes:
        truth: of each row.
    """

    name: str
    draw: Draw
    truth: np.ndarray


def by_effects(
    tables: list[np.ndarray], intervals: Callable[[list[Effect]], list[tuple[float, float]]]
) -> Drawn:
    """The rows of a section, with the intervals of their effects."""
    effects = crossed_means(tables)
    found = min(holm([effect.p_value() for effect in effects])) < 0.05
    return Drawn(tables, [effect.value for effect in effects], intervals(effects), found)


def of_differences(effects: list[Effect]) -> list[tuple[float, float]]:
    """Intervals of differences, and of what has no bounds."""
    return [effect.interval() for effect in effects]


def of_bits(effects: list[Effect]) -> list[tuple[float, float]]:
    """Intervals of identification bits."""
    return [bounded_interval(effect, 0.0, math.log2(GALLERY)) for effect in effects]


def of_shares(effects: list[Effect]) -> list[tuple[float, float]]:
    """Intervals of shares of :data:`IMAGES` a class."""
    samples = effects[0].seeds * effects[0].classes * IMAGES
    design = design_effect((effect, samples) for effect in effects)
    return [proportion_interval(effect, samples, design) for effect in effects]


def latent(
    rng: np.random.Generator,
    rows: int,
    seeds: int,
    classes: int,
    of_seed: float,
    of_class: float,
    rest: float,
    common: float = 0.5,
) -> np.ndarray:
    """Normal effects ``(rows, S, C)`` with these variances; rows have part of that of classes in common."""
    together = rng.normal(size=(1, 1, classes)) * math.sqrt(of_class * common)
    own = rng.normal(size=(rows, 1, classes)) * math.sqrt(of_class * (1 - common))
    by_seed = rng.normal(size=(rows, seeds, 1)) * math.sqrt(of_seed)
    return together + own + by_seed + rng.normal(size=(rows, seeds, classes)) * math.sqrt(rest)


def differences(of_seed: float, of_class: float) -> Scenario:
    """Differences from one baseline, normal; variances as multiples of that of the rest."""

    def draw(rng: np.random.Generator, seeds: int, classes: int) -> Drawn:
        # Each of the two rows has half of the variance; what rows share of classes cancels.
        made = latent(rng, ROWS + 1, seeds, classes, of_seed / 2, of_class, 0.5)
        return by_effects(list(made[1:] - made[0]), of_differences)

    return Scenario(f"differences, seeds {of_seed:g}, classes {of_class:g}", draw, np.zeros(ROWS))


def shares(name: str, means: tuple[float, ...]) -> Scenario:
    """Shares of 8 images a class: logits vary with classes, seeds and both."""
    centre = np.array([_solve(_share, mean) for mean in means])

    def draw(rng: np.random.Generator, seeds: int, classes: int) -> Drawn:
        logits = centre[:, None, None] + latent(rng, len(means), seeds, classes, *LOGITS)
        tables = rng.binomial(IMAGES, special.expit(logits)) / IMAGES
        return by_effects(list(tables), of_shares)

    return Scenario(name, draw, np.array(means))


def _share(centre: float) -> float:
    """The true share where logits vary about a centre."""
    normal = _normal(REAL_CLASSES) * math.sqrt(sum(LOGITS))
    return float(special.expit(centre + normal).mean())


@cache
def _normal(count: int) -> np.ndarray:
    """The draws that true shares are computed from."""
    return np.random.default_rng(0).normal(size=count)


def exact_intervals(means: tuple[float, ...], seeds: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and widths ``(rows,)`` of the intervals of someone who knows all of the model but the share.

    Their ends are the shares under which as few hits, or as many, have a probability of 2.5 %.
    """
    rng = np.random.default_rng([seeds, classes])
    hits = np.arange(seeds * classes * IMAGES + 1)

    def distribution(centre: float) -> np.ndarray:
        logits = centre + latent(rng, EXACT_DRAWS, seeds, classes, *LOGITS, common=0.0)
        counts = rng.binomial(IMAGES, special.expit(logits)).sum((1, 2))
        return np.bincount(counts, minlength=len(hits)) / EXACT_DRAWS

    centres = np.arange(-10, 10.01, 0.1)
    true = np.array([_share(centre) for centre in centres])
    found = np.array([distribution(centre) for centre in centres])
    as_few = np.minimum.accumulate(np.cumsum(found, axis=1))
    as_many = np.maximum.accumulate(np.cumsum(found[:, ::-1], axis=1)[:, ::-1])
    low = np.array([np.interp(0.025, one, true) for one in as_many.T])
    high = np.array([np.interp(0.025, one[::-1], true[::-1]) for one in as_few.T])
    low[0], high[-1] = 0, 1
    coverage, widths = [], []
    for mean in means:
        likely = distribution(float(np.interp(mean, true, centres)))
        coverage.append(likely[(low <= mean) & (mean <= high)].sum())
        widths.append(likely @ (high - low))
    return np.array(coverage), np.array(widths)


def differences_of_shares(mean: float) -> Scenario:
    """Differences of shares of 8 images a class, from a baseline with the same true share."""
    centre = _solve(_share, mean)

    def draw(rng: np.random.Generator, seeds: int, classes: int) -> Drawn:
        logits = centre + latent(rng, ROWS + 1, seeds, classes, *LOGITS)
        tables = rng.binomial(IMAGES, special.expit(logits)) / IMAGES
        return by_effects(list(tables[1:] - tables[0]), of_differences)

    return Scenario(f"differences of shares near {mean:g}", draw, np.zeros(ROWS))


def _ranks(rng: np.random.Generator, mean: float, seeds: int, classes: int) -> np.ndarray:
    """Ranks ``(rows, S, C, images)`` among a gallery, from normal similarities."""
    centre = mean + latent(rng, ROWS, seeds, classes, 0.01, 0.5, 0.2)
    similarity = centre[..., None] + rng.normal(size=(*centre.shape, IMAGES))
    return 1 + np.floor((GALLERY - 1) * special.ndtr(-similarity))


def _real_ranks(mean: float) -> np.ndarray:
    similarity = mean + np.random.default_rng(0).normal(size=REAL_CLASSES) * math.sqrt(1.71)
    return 1 + np.floor((GALLERY - 1) * special.ndtr(-similarity))


def bits(mean: float) -> Scenario:
    """Identification bits, bounded on both sides and skewed."""

    def draw(rng: np.random.Generator, seeds: int, classes: int) -> Drawn:
        tables = np.log2(GALLERY / _ranks(rng, mean, seeds, classes)).mean(-1)
        return by_effects(list(tables), of_bits)

    truth = float(np.log2(GALLERY / _real_ranks(mean)).mean())
    return Scenario(f"bits near {truth:.0f}", draw, np.full(ROWS, truth))


def unequal_classes() -> Scenario:
    """Classes with 1 to 40 samples, whose number has nothing to do with their mean."""

    def draw(rng: np.random.Generator, seeds: int, classes: int) -> Drawn:
        counts = np.clip(np.round(np.exp(rng.normal(2, 0.6, classes))), 1, 40).astype(int)
        made = latent(rng, ROWS, seeds, classes, 0.01, 0.5, 0.2)
        made = made + rng.normal(size=made.shape) / np.sqrt(counts)
        return by_effects([weighted(table, counts.tolist()) for table in made], of_differences)

    return Scenario("unequal classes", draw, np.zeros(ROWS))


def medians() -> Scenario:
    """Median ranks; the value is the mean over seeds."""

    def draw(rng: np.random.Generator, seeds: int, classes: int) -> Drawn:
        ranks = _ranks(rng, 1.0, seeds, classes)
        tables = [below_median(one.tolist()) for one in ranks]
        values = np.median(ranks.reshape(ROWS, seeds, -1), axis=2).mean(1)
        found = zip(ranks.tolist(), crossed_means(tables), strict=True)
        intervals = [median_interval(one, effect) for one, effect in found]
        return Drawn(tables, values.tolist(), intervals)

    return Scenario("median ranks", draw, np.full(ROWS, np.median(_real_ranks(1.0))))


def _solve(function: Callable[[float], float], value: float) -> float:
    """Where an increasing function has a value, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < value else (low, middle)
    return low


@dataclass(frozen=True)
class Result:
    """What came of a scenario.

    Attributes:
        coverage: mean over the rows.
        width: as a multiple of the ideal one, likewise.
        found: how often a section finds a difference.
        rows: coverage of each row.
    """

    coverage: float
    width: float
    found: float
    rows: np.ndarray

    def __str__(self) -> str:
        return f"{100 * self.coverage:.1f} / {self.width:.2f}"


def simulate(
    scenario: Scenario, seeds: int, classes: int, sections: int, ideal: np.ndarray | None = None
) -> Result:
    """Coverage and width over ``sections`` draws.

    Args:
        ideal: width of the ideal interval of each row; Student's, as above, unless given.
    """
    rng = np.random.default_rng([seeds, classes])
    drawn = [scenario.draw(rng, seeds, classes) for _ in range(sections)]
    values = np.array([one.values for one in drawn])
    ends = np.array([one.intervals for one in drawn])
    held = (ends[..., 0] <= scenario.truth) & (scenario.truth <= ends[..., 1])
    widths = (ends[..., 1] - ends[..., 0]).mean(0)
    if ideal is None:
        freedom = _freedom(np.array([one.tables for one in drawn]))
        ideal = 2 * special.stdtrit(freedom, 0.975) * values.std(0)
    found = float(np.mean([one.found for one in drawn]))
    return Result(float(held.mean()), float((widths / ideal).mean()), found, held.mean(0))


def _freedom(tables: np.ndarray) -> np.ndarray:
    """Degrees of freedom of the ideal interval of each row, from tables ``(sections, rows, S, C)``.

    They are Satterthwaite's of a variance of which the part of the classes is estimated, the rest known.
    """
    seeds, classes = tables.shape[2:]
    by_seed, by_class = tables.mean(3, keepdims=True), tables.mean(2, keepdims=True)
    left = tables - by_seed - by_class + tables.mean((2, 3), keepdims=True)
    of_seeds = by_seed.var(2, ddof=1).mean((0, 2)) / seeds
    of_classes = by_class.var(3, ddof=1).mean((0, 2)) / classes
    of_rest = np.square(left).sum((2, 3)).mean(0) / ((seeds - 1) * (classes - 1) * seeds * classes)
    return (classes - 1) * ((of_seeds + of_classes - of_rest) / of_classes) ** 2


SCENARIOS = (
    lambda: differences(0, 0.1),
    lambda: differences(0.005, 0.1),
    lambda: differences(0.03, 0.7),
    lambda: differences(0.25, 1),
    lambda: shares("shares .1 to .9", (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9)),
    lambda: shares("shares near 0 and 1", NEAR_BOUNDS),
    lambda: differences_of_shares(0.3),
    lambda: differences_of_shares(0.05),
    lambda: bits(0.5),
    lambda: bits(2.0),
    lambda: bits(3.5),
    unequal_classes,
    medians,
)


def table(sections: int) -> None:
    """Print the tables of docs/statistics.md: coverage and width, then of false differences."""
    scenarios = [make() for make in SCENARIOS]
    results = {}
    print("| seeds | classes |", " | ".join(one.name for one in scenarios), "|")
    print("|---|---|" + "---|" * len(scenarios))
    for size in product(SEEDS, CLASSES):
        drawn = sections * (MORE_SECTIONS if size[1] <= FEW_CLASSES else 1)
        results[size] = [simulate(one, *size, drawn) for one in scenarios]
        print("|", " | ".join(map(str, (*size, *results[size]))), "|", flush=True)
    print()
    for size, row in results.items():
        none = [f"{100 * one.found:.1f}" for one, s in zip(row, scenarios, strict=True) if not s.truth.any()]
        print("|", " | ".join(map(str, (*size, *none))), "|", flush=True)


def exact_table(sections: int) -> None:
    """Print the third table: shares near 0 and 1 with few classes, one by one, beside exact intervals."""
    scenario = shares("shares near 0 and 1", NEAR_BOUNDS)
    print("| seeds | classes | intervals | width |", " | ".join(f"{one:g}" for one in NEAR_BOUNDS), "|")
    print("|---|---|---|---|" + "---|" * len(NEAR_BOUNDS))
    for seeds, classes in product(SEEDS, CLASSES[:2]):
        exact, widths = exact_intervals(NEAR_BOUNDS, seeds, classes)
        found = simulate(scenario, seeds, classes, sections * MORE_SECTIONS, widths)
        for name, width, rows in (("boards", f"{found.width:.2f}", found.rows), ("exact", "1", exact)):
            shown = " | ".join(f"{100 * one:.1f}" for one in rows)
            print(f"| {seeds} | {classes} | {name} | {width} | {shown} |", flush=True)


def components(folder: Path) -> None:
    """Print the variances on the boards: of seeds and of classes, as multiples of that of the rest."""
    cells: dict[tuple[str, ...], dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(folder.glob("*/*.json")):
        record = json.loads(path.read_text())
        section = [json.dumps(record[kind], sort_keys=True) for kind in ("attack", "prior")]
        row = json.dumps(record["defense"]["options"], sort_keys=True) + record["defense"]["name"]
        for name, means in record["per_class"].items():
            cells[path.parent.name, name, *section][row][record["seed"]] = means
    found = defaultdict(list)
    for (track, name, *_), rows in cells.items():
        of_seed, of_class = [], []
        for by_seed in rows.values():
            means = np.array([by_seed[seed] for seed in sorted(by_seed)])
            if min(means.shape) < 2:
                continue
            (seeds, classes), centre = means.shape, means.mean()
            rest = means - means.mean(1, keepdims=True) - means.mean(0) + centre
            square = np.square(rest).sum() / ((seeds - 1) * (classes - 1))
            if square > 1e-4:  # there is something to compare with
                of_seed.append((means.mean(1).var(ddof=1) - square / classes) / square)
                of_class.append((means.mean(0).var(ddof=1) - square / seeds) / square)
        if len(of_seed) > 3:
            found[track, name].append((np.mean(of_seed), np.mean(of_class)))
    for (track, name), ratios in sorted(found.items()):
        quantiles = np.quantile(ratios, (0.1, 0.5, 0.9), axis=0).T
        print(
            track, name, "seeds {:.3f} {:.3f} {:.3f}, classes {:.2f} {:.2f} {:.2f}".format(*quantiles.ravel())
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--components", action="store_true", help="print the variances on the boards")
    parser.add_argument("--sections", type=int, default=600, help="how many are drawn (default: 600)")
    arguments = parser.parse_args()
    if arguments.components:
        components(Path(__file__).parents[1] / "leaderboards" / "results")
    else:
        table(arguments.sections)
        print()
        exact_table(arguments.sections)

"""A board as a Markdown page. The text depends on the records, the track and nothing else."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mia_bench.api.metric import Quantity
from mia_bench.components import OPTION_KINDS
from mia_bench.leaderboard.aggregate import FEW_SEEDS, Missing, Quantities, Row, Shown
from mia_bench.leaderboard.board import Board, Section
from mia_bench.leaderboard.compare import Paired
from mia_bench.leaderboard.described import changed as changed_by
from mia_bench.leaderboard.tuning import MARGIN, Candidate, Chosen, Tuning
from mia_bench.provenance import HOST, package_url
from mia_bench.record import Record
from mia_bench.recorded_options import option_text, options_text
from mia_bench.registry import Registry
from mia_bench.statistics import RESAMPLES, Estimate
from mia_bench.track import Choice, ClassifierSpec, Track

_ARROWS = {"higher": " ↑", "lower": " ↓", "neutral": ""}
_NONE = "–"
_FEW = "†"
TITLE = "# Leaderboard: "
"""What the page of a track begins with."""


# --- words and numbers -----------------------------------------------------------------------


def code(text: str) -> str:
    """A code span: what comes from a record is never read as Markdown or HTML."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`" if text.strip() else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is aligned left, numbers read well either way."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *map(line, rows)])


def interval(quantity: Quantity, estimate: Estimate) -> str:
    """``0.842 [0.801, 0.880]``; the value alone where there is nothing to be uncertain about."""
    value, low, high = map(quantity.format, (estimate.value, estimate.low, estimate.high))
    certain = estimate.low == estimate.high == estimate.value
    return (
        value if certain and quantity.kind not in ("share", "rank") else f"{value} [{low}, {high}]"
    )


def signed(value: float) -> str:
    """A difference with its sign and three decimals; never ``-0.000``."""
    return f"{round(value, 3) + 0.0:+.3f}"


def paired_text(difference: Paired | None) -> str:
    """``-0.120 [-0.171, -0.069], 3 seeds``."""
    if difference is None:
        return _NONE
    count = len(difference.seeds)
    seeds = f"{count} seed" + ("s" if count > 1 else "")
    return (
        f"{signed(difference.mean)} [{signed(difference.low)}, {signed(difference.high)}], {seeds}"
    )


class _Notes:
    """Footnotes of one table: the same reason gets the same letter."""

    def __init__(self, quantities: Quantities) -> None:
        self._quantities = quantities
        self._letters: dict[str, str] = {}
        self._few = False

    def metric(self, name: str, shown: Shown | None) -> str:
        """A table cell, with a footnote where the value is missing."""
        if shown is None:
            return ""
        if isinstance(shown, Estimate):
            return interval(self._quantities[name], shown)
        return f"{_NONE} ({self._letter(shown)})"

    def seeds(self, row: Row) -> str:
        """The number of seeds, marked when there are few."""
        self._few = self._few or row.few_seeds
        return f"{len(row.seeds)}{f' {_FEW}' if row.few_seeds else ''}"

    def _letter(self, missing: Missing) -> str:
        count = len(self._letters)
        letter = "abcdefghijklmnopqrstuvwxyz"[count % 26] + str(count // 26 or "")
        return self._letters.setdefault(missing.reason, letter)

    def text(self) -> str:
        """The notes as a list."""
        lines = [f"- ({letter}) {code(reason)}" for reason, letter in self._letters.items()]
        if self._few:
            lines.insert(
                0, f"- {_FEW} fewer than {FEW_SEEDS} seeds: read its differences with caution"
            )
        return "\n".join(lines)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _sentence(text: str) -> str:
    text = _plain(text).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


# --- the page --------------------------------------------------------------------------------


def page(
    board: Board, registry: Registry, tuning: Tuning | None = None, *, sweep: bool = False
) -> str:
    """The page of one track.

    Args:
        board: what it shows.
        registry: what is installed.
        tuning: what chose the settings of the defenses.
        sweep: the page is that of the sweep which chose them.
    """
    track = board.track
    parts = [
        f"{TITLE}{track.name} (version {track.version}{', sweep of settings' if sweep else ''})",
        _sentence(track.summary),
        _introduction(board),
        "## How to read it",
        _reading(board),
        "## Utility: what a defense costs",
        *_utility(board),
        "## Leakage: what an attack recovers",
        *(part for section in board.sections for part in _section(board, section)),
        "## Methods",
        _methods(board),
        "## Protocol",
        *_protocol(board),
        *(_tuning(board, tuning, sweep=sweep) if tuning else []),
        "## Seeds, intervals, versions",
        *_statistics(board),
        "## Reproduce it",
        *_reproduce(board, registry, sweep=sweep),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(board: Board) -> str:
    done = sum(record.status == "done" for record in board.records)
    return (
        "Each row is a classifier trained under one defense and attacked by model inversion; "
        f"settings of defenses: {len(board.utility)}, of attacks and priors: {len(board.sections)}; "
        f"finished cells: {done} of {len(board.records)}, the newest of "
        f"{board.finished[:10] or 'no date'}. A good defense leaks little *and* keeps its accuracy: "
        "read the leakage tables together with the utility table."
    )


def _reading(board: Board) -> str:
    lines = [
        "Arrows say what is better for the *defender*: ↑ higher, ↓ lower. A number is the mean over "
        "seeds with its 95 % interval. Two judges look at every reconstruction: the evaluation "
        "classifier (`attack_*`, `delta_eval`), which is trained on the same private images and can "
        f"be fooled by images that no person would recognise, and {_second_judge(board)}. "
        f"Tables are ordered by {code(board.primary)}, best defended first.",
        "",
    ]
    shown = (*board.utility_metrics, *board.leakage_metrics, *board.further_metrics)
    for name in shown:
        text = board.quantities[name].description
        lines.append(f"- {code(name)}{_arrow(board, name)}" + (f": {_plain(text)}" if text else ""))
    lines.append(
        f"- {_NONE} stands for a number that could not be computed; the reason is below the table"
    )
    return "\n".join(lines)


def _second_judge(board: Board) -> str:
    if not (board.track.judge or board.track.encoder):
        return "an independent one (`id_*`), which is missing here"
    if board.track.judge:
        return (
            "the independent judge (`id_*`), a classifier trained on images of the same classes that "
            "nothing else was trained on"
        )
    return (
        "the identity encoder (`id_*`), which was made without them (whether it met some of the same "
        "people where it was trained is the track's to say)"
    )


def _arrow(board: Board, name: str) -> str:
    return _ARROWS[board.quantities[name].better]


def _headers(board: Board, names: Iterable[str]) -> list[str]:
    return [f"{code(name)}{_arrow(board, name)}" for name in names]


def _utility(board: Board) -> list[str]:
    if not board.utility:
        return ["No cell has finished."]
    notes = _Notes(board.quantities)
    rows = [
        [
            code(row.defense),
            code(row.options),
            notes.seeds(row),
            *(notes.metric(name, row.metrics[name]) for name in board.utility_metrics),
            _seconds(row, "train_seconds"),
        ]
        for row in board.utility
    ]
    header = ["defense", "options", "seeds", *_headers(board, board.utility_metrics)]
    return [table([*header, "train_seconds"], rows), notes.text()]


def _seconds(row: Row, name: str) -> str:
    return f"{row.cost[name]:.1f}" if name in row.cost else _NONE


def _section(board: Board, section: Section) -> list[str]:
    parts = [
        f"### {_title(board, section)}",
        (f"Access: {access}. " if (access := _access(board, section)) else "")
        + f"Attack options: {code(options_text(section.attack_options)) or 'none'}. "
        f"Prior options: {code(options_text(section.prior_options)) or 'none'}."
        + (f" Reference: {section.reference}." if section.reference else ""),
    ]
    if section.rows:
        parts += _leakage_table(board, section)
    else:
        parts.append("No cell has finished.")
    parts += _difference_table(board, section)
    if section.unfinished:
        lines = [
            f"- {_defense(cells.defense, cells.options)}, seeds {_listed(cells.seeds)}: "
            f"{cells.status}, {code(cells.reason)}"
            for cells in section.unfinished
        ]
        parts += ["Cells without numbers:", "\n".join(lines)]
    return parts


def _access(board: Board, section: Section) -> str:
    """The attack's threat model; a reference that never asks the target has none worth telling."""
    return "" if section.reference else board.methods["attack", section.attack].access


def _methods(board: Board) -> str:
    lines = []
    for (kind, name), about in sorted(board.methods.items()):
        words = [code(text) for text in (about.summary, about.paper) if text.strip()]
        lines.append(f"- {kind} {code(name)}" + (f": {'; '.join(words)}" if words else ""))
    return "\n".join(lines)


def _title(board: Board, section: Section) -> str:
    """Attack and prior, with the options that tell this section from its namesakes."""
    name = f"{code(section.attack)} with the prior {code(section.prior)}"
    return name + _variant(board, section)


def _variant(board: Board, section: Section) -> str:
    """The options that differ between sections of the same attack and prior, in parentheses."""
    same = [s for s in board.sections if (s.attack, s.prior) == (section.attack, section.prior)]
    telling = {}
    for part in ("attack_options", "prior_options"):
        options: Mapping[str, Any] = getattr(section, part)
        for key, value in options.items():
            if any(getattr(other, part).get(key) != value for other in same):
                telling[key] = value
    return f" ({code(options_text(telling))})" if telling else ""


def _defense(name: str, options: str) -> str:
    return code(name) + (f" ({code(options)})" if options else "")


def _leakage_table(board: Board, section: Section) -> list[str]:
    notes = _Notes(board.quantities)
    names = (*board.leakage_metrics, *board.further_metrics)
    references = [section.ceiling] if section.ceiling else []
    rows = []
    for row in (*references, *section.rows, *section.floors):
        cells = [notes.metric(name, row.metrics.get(name)) for name in names]
        # A reference row leaves empty what it has no number for.
        start = [_row_name(row, section), code(row.options), notes.seeds(row) if row.seeds else ""]
        end = [_seconds(row, "invert_seconds"), _queries(row)] if row.seeds else ["", ""]
        rows.append([*start, *cells, *end])
    header = ["defense", "options", "seeds", *_headers(board, names)]
    return [table([*header, "invert_seconds", "target_queries"], rows), notes.text()]


def _row_name(row: Row, section: Section) -> str:
    if section.reference and row.defense:
        return f"{code(row.defense)} *({row.label})*"
    return f"*{row.label}*" if row.label else code(row.defense)


def _queries(row: Row) -> str:
    return f"{row.cost['target_queries']:.0f}" if "target_queries" in row.cost else _NONE


def _difference_table(board: Board, section: Section) -> list[str]:
    if not section.differences or section.baseline is None:
        return []
    names = [n for n in board.paired if any(d.metrics[n] for d in section.differences)]
    rows = [
        [code(d.defense), code(d.options), *(paired_text(d.metrics[name]) for name in names)]
        for d in section.differences
    ]
    header = ["defense", "options", *(f"Δ {title}" for title in _headers(board, names))]
    return [
        f"Difference to {_defense(section.baseline.defense, section.baseline.options)} on the same "
        "seeds (negative: leaks less than it):",
        table(header, rows),
    ]


# --- the protocol ----------------------------------------------------------------------------


def _protocol(board: Board) -> list[str]:
    track = board.track
    data = track.data
    encoder = "none" if track.judge else "none: the `id_*` metrics can't be computed"
    if track.encoder:
        encoder = _choice(track.encoder)
    attacked = f"the first {track.attacked_classes}" if track.attacked_classes else "all"
    lines = [
        f"- data set: {_choice(data.dataset)}, {data.resolution} × {data.resolution} pixels, split "
        f"seed {data.split_seed}, fingerprint {_fingerprint(board)}",
        f"- classes attacked: {attacked}; {track.images_per_class} images a class, from every attack",
        f"- target: {_classifier(track.target)}",
        f"- evaluation model: {_classifier(track.evaluation)}",
        *([f"- independent judge: {_classifier(track.judge)}"] if track.judge else []),
        f"- identity encoder: {encoder}",
        *(
            f"- {code(name)} {interval(board.quantities[name], found)}: "
            f"{_plain(board.quantities[name].description)}"
            for name, found in board.references.items()
        ),
        f"- priors: {_priors(track)}",
        *(
            f"- attack {code(name)}: prior {code(chosen.prior)}, "
            f"options set by the track: {code(options_text(chosen.options)) or 'none'}"
            for name, chosen in sorted(track.attacks.items())
        ),
        *(
            f"- defense {code(name)}: options set by the track: {code(options_text(options))}"
            for name, options in sorted(track.defenses.items())
            if options
        ),
        f"- metrics: {_listed(code(name) for name in track.metrics)}",
    ]
    return [track.protocol.strip(), "\n".join(lines)]


def _choice(choice: Choice) -> str:
    return _defense(choice.name, options_text(choice.options))


def _fingerprint(board: Board) -> str:
    if board.track.data.fingerprint:
        return code(board.track.data.fingerprint)
    found = sorted({record.track.data for record in board.records})
    return _listed(code(value) for value in found if value) or "none"


def _classifier(spec: ClassifierSpec) -> str:
    recipe = spec.recipe
    augmentation = [
        *(["mirroring"] if recipe.flip else []),
        *([f"shifts of up to {recipe.shift} pixels"] if recipe.shift else []),
        *([f"brightness and contrast ± {recipe.jitter:g}"] if recipe.jitter else []),
    ]
    milestones = ", ".join(f"{100 * milestone:g} %" for milestone in recipe.milestones)
    return (
        f"{_choice(spec.architecture)}, {recipe.epochs} epochs, batches of {recipe.batch_size}, "
        f"learning rate {recipe.learning_rate:g}"
        + (f" (× {recipe.gamma:g} after {milestones} of the epochs)" if milestones else "")
        + f", weight decay {recipe.weight_decay:g}, {recipe.precision}, augmentation: "
        f"{_listed(augmentation) or 'none'}; the last epoch is kept"
    )


def _priors(track: Track) -> str:
    names = sorted({*track.priors, track.default_prior})
    words = [_defense(name, options_text(track.priors.get(name, {}))) for name in names]
    return f"{_listed(words)}; {code(track.default_prior)} unless an attack has its own"


def _tuning(board: Board, tuning: Tuning, *, sweep: bool) -> list[str]:
    """The rule, and what it chose; on the sweep's own page every setting that was tried."""
    seeds = f"seed{'s' if len(tuning.seeds) > 1 else ''} {_listed(tuning.seeds)}"
    name, points = board.track.name, f"{100 * MARGIN:g} points"
    undefended = board.quantities[tuning.selection].format(tuning.accuracy)
    attack = f"{code(tuning.attack)} with the prior {code(board.track.prior_of(tuning.attack))}"
    text = (
        f"Settings of each defense were tried on {seeds} and on validation images; no board uses "
        "either. Chosen is the setting that leaks least under "
        f"{attack} ({code(tuning.metric)}) among those whose validation accuracy is at "
        f"most {points} below the undefended target's, {undefended}; where "
        "there is none, the one that comes nearest to it. One seed tells close settings apart only by "
        "chance."
    )
    if not sweep:
        text += f" Every setting that was tried: [tuning/{name}.md](tuning/{name}.md)."
    rows = [
        [
            code(chosen.defense),
            _varied(chosen, setting),
            _tuned(board, tuning.selection, setting.accuracy),
            _tuned(board, tuning.metric, setting.leakage),
            _verdict(chosen, setting),
        ]
        for chosen in tuning.choices
        for setting in chosen.tried
        if sweep or setting is chosen.setting
    ]
    rows += [
        [code(chosen.defense), _NONE, _NONE, _NONE, "no setting finished"]
        for chosen in tuning.choices
        if chosen.setting is None and not sweep
    ]
    header = ["defense", "setting", code(tuning.selection), code(tuning.metric), f"within {points}"]
    return ["## How the settings were chosen", text, table(header, rows)]


def _tuned(board: Board, name: str, value: float | None) -> str:
    return _NONE if value is None else board.quantities[name].format(value)


def _verdict(chosen: Chosen, setting: Candidate) -> str:
    if setting is not chosen.setting:
        return "" if setting.finished else "did not finish"
    return "**chosen**" if chosen.near else "**chosen**, none is within: the nearest"


def _varied(chosen: Chosen, setting: Candidate) -> str:
    """The options that the sweep varied, or all where it tried one setting."""
    varied = {
        key: value
        for key, value in setting.options.items()
        if len(chosen.tried) == 1 or any(tried.options.get(key) != value for tried in chosen.tried)
    }
    return code(options_text(varied))


# --- statistics, versions, reproduction ------------------------------------------------------


def _statistics(board: Board) -> list[str]:
    names = {"mia_bench": "mia-bench", "git": "commit", "python": "Python", "torch": "torch"}
    versions = [
        f"- {names.get(name, name)}: {_listed(code(value) for value in values)}"
        for name, values in board.versions.items()
    ]
    return [
        f"Seeds: {_listed(board.seeds) or 'none'}. A seed sets the target's training and the attack; "
        "splits, priors, evaluation model and encoder are the track's, the same for all.",
        "Intervals are 95 %. Within a seed whole classes are resampled, with all their samples, "
        f"{RESAMPLES} times (bias-corrected percentile bootstrap; where every sample is 0 or every one "
        "is 1, the exact interval for as many classes). Over seeds a row shows the mean; each side of its "
        "interval adds in quadrature the spread of the seeds (Student's t · s / √S on S seeds) and "
        "the mean half-width of the bootstraps, which more seeds don't shrink because all seeds "
        "share their classes. Intervals are cut at the values a metric can have. Differences to the "
        "baseline are taken class by class on the same seeds; their interval adds the same two sources. "
        "Reference "
        "rows of held-out real images depend on no seed. Times are means over the seeds, on the "
        "devices below: compare those of one device only.",
        "\n".join(versions),
        _run_notes(board),
    ]


def _run_notes(board: Board) -> str:
    """What the runs had to say that belongs to no metric: images skipped, batches halved."""
    found: dict[str, int] = defaultdict(int)
    for record in board.records:
        for name, note in record.notes.items():
            if name not in record.metrics:
                found[note] += 1
    lines = [f"- {code(note)} ({count} cells)" for note, count in sorted(found.items())]
    return "\n".join(["Notes of the runs:", "", *lines]) if lines else ""


def _reproduce(board: Board, registry: Registry, *, sweep: bool) -> list[str]:
    name = board.track.name
    owner = registry.get("track", name).plugin.distribution
    others = {owner: package_url(owner)} if owner != HOST else {}
    for record in board.records:
        for part in (record.defense, record.prior, record.attack):
            if part.distribution != HOST:
                known = others.get(part.distribution, "")
                others[part.distribution] = part.about.url or known
    commands = [
        *(
            f"pip install {other}  # {url or 'its records name no address'}"
            for other, url in sorted(others.items())
        ),
        *_run_commands(board, registry),
        f"mia-bench leaderboard submit --track {name}"
        + (" --folder leaderboards/tuning" if sweep else ""),
        "mia-bench leaderboard build",
    ]
    return [
        "```sh\n" + "\n".join(commands) + "\n```",
        f"The records, one JSON file a cell, lie in [`results/{name}/`](results/{name}/); this page "
        "is made from them alone, and `mia-bench leaderboard check` tells when it no longer is. Boards "
        "elsewhere than in `leaderboards` take `--folder` on these commands.",
    ]


_Words = tuple[str, ...]


def _run_commands(board: Board, registry: Registry) -> list[str]:
    """Commands that run every finished cell: what has its defaults is listed together."""
    seeds: dict[tuple[_Words, _Words], set[int]] = defaultdict(set)
    for record in board.records:
        if record.status == "done":
            defense = _asked(registry, board.track, "defense", record)
            seeds[defense, _attack_words(registry, board.track, record)].add(record.seed)
    defenses: dict[tuple[_Words, tuple[int, ...], int], list[_Words]] = defaultdict(list)
    for number_, ((defense, attack), found) in enumerate(sorted(seeds.items())):
        # Options would multiply with the others', so a defense that has some stands alone.
        alone = number_ + 1 if len(defense) > 2 else 0
        defenses[attack, tuple(sorted(found)), alone].append(defense)
    attacks: dict[tuple[_Words, tuple[int, ...], int], list[_Words]] = defaultdict(list)
    for number_, ((attack, found_seeds, _), group) in enumerate(defenses.items()):
        words = tuple(word for defense in group for word in defense)
        attacks[words, found_seeds, number_ + 1 if len(attack) > 2 else 0].append(attack)
    return [
        shlex.join(
            [
                *("mia-bench", "run", "--track", board.track.name),
                *words,
                *(word for attack in group for word in attack),
                *(word for seed in found_seeds for word in ("--seed", str(seed))),
            ]
        )
        for (words, found_seeds, _), group in attacks.items()
    ]


def _attack_words(registry: Registry, track: Track, record: Record) -> _Words:
    attack = _asked(registry, track, "attack", record)
    prior = _asked(registry, track, "prior", record)
    usual = ("--prior", track.prior_of(record.attack.name))
    return attack if prior == usual else (*attack, *prior)


def _asked(registry: Registry, track: Track, kind: str, record: Record) -> _Words:
    """``--defense NAME -o NAME.KEY=VALUE …``, with the options that are not the track's."""
    component = getattr(record, kind)
    changed = changed_by(registry, track, kind, component)
    kinds = [other for other in OPTION_KINDS if component.name in registry.names(other)]
    owner = f"{kind}:{component.name}" if len(kinds) > 1 else component.name
    options = (
        word for key in sorted(changed) for word in ("-o", f"{owner}.{key}={_value(changed[key])}")
    )
    return (f"--{kind}", component.name, *options)


def _value(value: Any) -> str:
    return re.sub(r"\s", "", option_text(value)) if isinstance(value, list) else option_text(value)


# --- the index -------------------------------------------------------------------------------


def index(boards: Sequence[Board]) -> str:
    """The page that lists the boards."""
    rows = []
    for board in boards:
        accuracy = {(row.defense, row.options): row for row in board.utility}
        attacks = [section for section in board.sections if not section.reference]
        # Sections of reference attacks come last and stand for the track only when alone.
        for section in attacks or board.sections[:1]:
            rows.append(_index_row(board, section, accuracy))
    header = [
        "track",
        "attack",
        "prior",
        "rows",
        "metric",
        "baseline",
        "best defended",
        "its test_accuracy",
        "newest record",
    ]
    return (
        "\n\n".join(
            [
                "# Leaderboards",
                "Defenses against model inversion attacks, measured with mia-bench. Each page says what "
                "was measured, how, and how to run it again.",
                table(header, rows) if rows else "No records yet.",
                "Baseline and best row show the track's metric, how often an independent judge recognises "
                "the private class in a reconstruction (lower is better for the defender): the mean over "
                "seeds with its 95 % interval. `id_gallery_acc1` is rank 1 of a face recogniser among all "
                "private people and many decoys, `id_acc1` the first choice among the private classes; "
                "without an independent judge, `attack_acc1` is the evaluation classifier's. "
                "The best row leaks least; whether it is worth its accuracy is for the reader to judge. "
                "Only tracks with records are listed; `mia-bench list tracks` names them all.",
                "The records lie in `results/<track>/`. `mia-bench leaderboard submit` adds those of a "
                "store, `mia-bench leaderboard build` writes these pages, `mia-bench leaderboard check` "
                "tells when they and the records no longer agree.",
            ]
        )
        + "\n"
    )


def _index_row(
    board: Board, section: Section, accuracy: Mapping[tuple[str, str], Row]
) -> list[str]:
    track = board.track
    start = [
        f"[{track.name}]({track.name}.md) v{track.version}",
        code(section.attack) + _variant(board, section),
        code(section.prior),
        str(len(section.rows)),
        code(board.primary),
    ]
    baseline = section.baseline
    best = next((row for row in section.rows if row.value(board.primary) is not None), None)
    return [
        *start,
        f"{code(baseline.defense)} {_shown(board, board.primary, baseline)}" if baseline else _NONE,
        f"{_defense(best.defense, best.options)} {_shown(board, board.primary, best)}"
        if best
        else _NONE,
        _shown(board, "test_accuracy", accuracy[best.defense, best.options]) if best else _NONE,
        board.finished[:10],
    ]


def _shown(board: Board, name: str, row: Row) -> str:
    shown = row.metrics.get(name)
    return interval(board.quantities[name], shown) if isinstance(shown, Estimate) else _NONE

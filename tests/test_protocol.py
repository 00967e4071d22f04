"""The protocol's functions on objects: verification, random targets, reports beside metrics, evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mia_bench
from mia_bench.api.attack import Attack, Reconstructions
from mia_bench.api.images import to_float
from mia_bench.errors import MiaBenchError
from mia_bench.protocol.attack import Budget
from mia_bench.protocol.context import Context
from mia_bench.protocol.evaluate import evaluate_target
from mia_bench.protocol.evaluation import train_evaluation_model
from mia_bench.protocol.gallery import build_gallery, verify_pairs
from mia_bench.protocol.measurement import (
    Instruments,
    Measured,
    add_report,
    attack_evidence,
    picture_tensors,
)
from mia_bench.protocol.target import Target
from mia_bench.seeds import generator
from mia_bench.statistics import Estimate
from mia_bench.testing.world import RECIPE, RESOLUTION, ToyArchitecture, embed, world
from mia_bench_plugins.attacks.prior_sample import PriorSample
from mia_bench_plugins.defenses.none import NoDefense
from mia_bench_plugins.metrics.evaluation_classifier import EvaluationClassifier
from mia_bench_plugins.metrics.utility import Utility

CPU = torch.device("cpu")
CONTEXT = Context(RESOLUTION, 0, CPU)


# --- verification --------------------------------------------------------------------------------


def test_an_encoder_that_knows_nothing_verifies_half_of_the_pairs() -> None:
    # The threshold fits its own half by chance; the other half must not profit from that.
    labels = torch.arange(100).repeat_interleave(2)
    shares = []
    for number in range(150):
        rng = generator(number, "test")
        embeddings = F.normalize(torch.randn(200, 8, generator=rng), dim=1)
        scored = verify_pairs(embeddings, labels, rng, pairs=100)
        assert 40 <= len(scored) <= 50
        shares.append(float(scored.mean()))
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.02)  # of its own half 0.57


def test_an_encoder_that_knows_everybody_verifies_all_pairs() -> None:
    labels = torch.arange(100).repeat_interleave(2)
    scored = verify_pairs(F.one_hot(labels).float(), labels, generator(0, "test"))
    assert len(scored) == 100
    assert bool(scored.all())


def test_the_gallery_holds_the_mean_of_each_identity_in_the_order_of_labels() -> None:
    splits = world().splits
    gallery = build_gallery(splits, embed, Context(RESOLUTION, 0, CPU))
    for part, found in ((splits.train, gallery.private), (splits.decoys, gallery.decoys)):
        rows = embed(to_float(part.images)).double()
        means = [rows[part.labels == label].mean(0) for label in part.labels.unique()]
        torch.testing.assert_close(
            found.double(), F.normalize(torch.stack(means), dim=1), rtol=1e-5, atol=1e-6
        )
    torch.testing.assert_close(gallery.test, embed(to_float(splits.test.images)))


# --- random targets ------------------------------------------------------------------------------


class Coin(nn.Module):
    """Is sure of class 0 or of class 1, at random."""

    def forward(self, images: Tensor) -> Tensor:
        heads = torch.rand(len(images)) < 0.5
        logits = torch.full((len(images), world().classes), -50.0)
        logits[torch.arange(len(images)), heads.long()] = 50.0
        return logits


def test_answers_of_a_random_target_are_averaged() -> None:
    where = world()
    images = where.splits.train.images.repeat(10, 1, 1, 1)[:240].view(2, 120, 3, RESOLUTION, RESOLUTION)
    instruments = Instruments(where.evaluation_model(CPU))
    for stochastic, deviation in ((True, 0.5 / 16**0.5), (False, 0.5)):
        target = Target(None, Coin(), stochastic)
        evidence = attack_evidence(images, target, where.splits, instruments, CPU)
        confidence = picture_tensors(evidence, images.shape, seed=0)["target_confidence"]
        assert float(confidence.mean()) == pytest.approx(0.5, abs=0.1)
        assert float(confidence.std()) == pytest.approx(deviation, rel=0.2)


# --- reports -------------------------------------------------------------------------------------


def test_a_report_adds_numbers_without_an_interval_and_reasons() -> None:
    measured = Measured()
    add_report(measured, {"epsilon": 2.5, "delta": "not accounted"}, "defense 'd' of plugin p")
    assert measured.values == {"epsilon": Estimate(2.5, 2.5, 2.5, 1), "delta": None}
    assert measured.notes == {"delta": "not accounted"}


def test_a_report_can_not_replace_a_measurement() -> None:
    measured = Measured()
    measured.add("metric 'utility' of plugin mia-bench", "ece", Estimate(0.1, 0.0, 0.2, 9))
    with pytest.raises(MiaBenchError) as raised:
        add_report(measured, {"ece": 0.0}, "defense 'mine' of plugin theirs")
    assert str(raised.value) == (
        "'ece' is given twice: by metric 'utility' of plugin mia-bench and by defense 'mine' of plugin theirs"
    )
    assert measured.values["ece"] == Estimate(0.1, 0.0, 0.2, 9)


def test_a_cell_whose_report_and_metric_share_a_name_fails(toy, store, monkeypatch, tmp_path) -> None:
    store("data", "prior", "gallery", "evaluator")
    monkeypatch.setattr(NoDefense, "report", lambda self, setup: {"test_accuracy": 1.0})
    given = {"track": "toy", "defense": "none", "attack": "prior-sample", "device": "cpu"}
    (record,) = mia_bench.run(**given, store=tmp_path / "store")
    assert record.status == "failed"
    assert "'test_accuracy' is given twice" in record.reason
    assert "metric 'utility' of plugin mia-bench" in record.reason
    assert "defense 'none' of plugin mia-bench" in record.reason
    assert record.metrics == {}


# --- evaluation ----------------------------------------------------------------------------------


def evaluate(attack: Attack, target: Target, context: Context = CONTEXT):
    where = world()
    return evaluate_target(
        target,
        where.splits,
        attack,
        where.prior(CPU),
        Budget(images_per_class=3),
        Instruments(where.evaluation_model(CPU)),
        {"utility": Utility(), "evaluation": EvaluationClassifier()},
        attack_context=context,
        measure_context=CONTEXT,
    )


def test_a_target_is_measured_attacked_and_its_leakage_measured() -> None:
    network = world().target(CPU)
    found = evaluate(PriorSample(), Target(network, network, stochastic=False))
    assert found.reconstructions.shape == (world().classes, 3, 3, RESOLUTION, RESOLUTION)
    assert found.metrics["test_accuracy"].n == len(world().splits.test)
    assert found.metrics["attack_acc1"].n == 3 * world().classes
    assert len(found.per_class["attack_acc1"]) == world().classes
    assert found.queries == 0


def test_the_reconstructions_of_a_class_lie_together() -> None:
    network = world().target(CPU)
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 4, 4).unflatten(0, (2, 3))
    found = attack_evidence(
        images, Target(network, network, stochastic=False), world().splits, Instruments(network), CPU
    )
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_model_without_hidden_features_is_evaluated_too() -> None:
    found = evaluate(PriorSample(), Target(None, Coin(), stochastic=True))
    assert found.metrics["test_accuracy"].value < 0.6


def test_what_an_attack_draws_follows_from_the_seed_of_the_cell_alone() -> None:
    class Drawing(PriorSample):
        """Draws without the generator that it is given."""

        def invert(self, task) -> Reconstructions:
            found = super().invert(task)
            return Reconstructions(torch.rand(found.images.shape))

    network = world().target(CPU)
    target, images = Target(network, network, stochastic=False), []
    for seed in (0, 0, 1):
        torch.rand(len(images) + 1)
        context = Context(RESOLUTION, seed, CPU)
        images.append(evaluate(Drawing(), target, context).reconstructions)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_two_models_of_one_seed_are_trained_in_streams_of_their_own(monkeypatch) -> None:
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(
        "mia_bench.protocol.evaluation.train_classifier",
        lambda model, *given, seed, **more: seen.append((seed, model.head.weight.sum().item())),
    )
    splits = world().splits
    for role in ("evaluator", "judge", "evaluator"):
        train_evaluation_model(ToyArchitecture(), splits, splits.train, RECIPE, CONTEXT, role=role)
    first, second, again = seen
    assert first == again
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_an_attack_that_modifies_the_target_is_refused() -> None:
    class Modifying(PriorSample):
        def invert(self, task) -> Reconstructions:
            with torch.no_grad():
                next(task.access._model.parameters()).add_(1)
            return super().invert(task)

        access = "white-box"

    network = world().target(CPU)
    with pytest.raises(MiaBenchError, match=r"the attack changed blocks\.0\.0\.weight of the target"):
        evaluate(Modifying(), Target(network, network, stochastic=False))

"""Networks of torchvision: the same answers as torchvision's own, blocks, weights from files."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from mia_bench import NetworkTask
from mia_bench.api.classifier import Activations, Classifier
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense
from mia_bench.errors import MiaBenchError
from mia_bench.track import Recipe
from mia_bench.training import train_classifier
from mia_bench_plugins.defenses.private_steps import per_sample_gradients
from mia_bench_plugins.models import torchvision_models, torchvision_networks
from mia_bench_plugins.models.norms import replace_batch_norm
from mia_bench_plugins.models.torchvision_models import TorchvisionArchitecture

NAMES = ["resnet18", "resnet152", "resnext50_32x4d", "densenet161", "densenet169", "inception_v3"]


def options(name: str, **more) -> TorchvisionArchitecture.Options:
    return TorchvisionArchitecture.Options(network=name, **more)


def theirs(name: str, classes: int = 7, **more: bool) -> nn.Module:
    """Torchvision's own network; Inception transforms its input, as it does with ImageNet's weights."""
    if name == "inception_v3":
        more = {"aux_logits": False, "init_weights": False, "transform_input": True, **more}
    torch.manual_seed(1)
    return torchvision.models.get_model(name, num_classes=classes, **more).eval()


def last_layer(model: nn.Module) -> nn.Linear:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a network's state under the name that its weights would have."""

    def write(name: str, state: dict) -> Path:
        path = tmp_path / "whole.pth"
        torch.save(state, path)
        file = f"{name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
        monkeypatch.setitem(torchvision_models.IMAGENET, name, file)
        return path.rename(tmp_path / file)

    return write


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("resnet18", "inception_v3") else pytest.param(name, marks=pytest.mark.slow)
        for name in NAMES
    ],
)
def test_answers_are_torchvisions(name: str, published, tmp_path: Path) -> None:
    reference = theirs(name)
    published(name, reference.state_dict())
    task = NetworkTask(num_classes=7, resolution=80, weights=tmp_path)
    model = TorchvisionArchitecture(options(name)).build(task).eval()
    head, theirs_head = last_layer(model.head), last_layer(reference)
    head.load_state_dict(theirs_head.state_dict())
    images = torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        shown = model.activations(images)
        # torchvision's networks are given images within ±1, as ours gives them to its blocks.
        expected = reference(images * 2 - 1)
    torch.testing.assert_close(shown.logits, expected, atol=1e-4, rtol=1e-4)
    assert len(shown.hidden) == (4 if name == "inception_v3" else 5)
    assert shown.features.shape == (2, theirs_head.in_features)


@pytest.mark.parametrize("classes", [7, 1200])
def test_inceptions_auxiliary_head_is_trained_as_the_papers_code_does(
    published, tmp_path: Path, classes: int
) -> None:
    """It keeps ImageNet's 1,000 outputs; in evaluation it is not there."""
    reference = theirs("inception_v3", 1000, aux_logits=True)
    published("inception_v3", reference.state_dict())
    task = NetworkTask(num_classes=classes, resolution=32, weights=tmp_path)
    model = TorchvisionArchitecture(options("inception_v3", size=299, auxiliary=True)).build(task)
    images = torch.rand(2, 3, 299, 299)
    assert model.eval().activations(images).auxiliary == ()
    if classes > 1000:
        assert model.auxiliary.fc.out_features == classes
        return
    model.head[1] = reference.fc
    for network in (model, reference):
        network.train()
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    shown, expected = model.activations(images), reference(images * 2 - 1)
    (auxiliary,) = shown.auxiliary
    torch.testing.assert_close(shown.logits, expected.logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(auxiliary, expected.aux_logits, atol=1e-3, rtol=1e-3)


class Twofold(Classifier):
    """A linear classifier with a further one in training."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList()
        self.head, self.further = nn.Linear(3, 4), nn.Linear(3, 4)

    def activations(self, images: torch.Tensor) -> Activations:
        shown = super().activations(images)
        return replace(shown, auxiliary=(self.further(shown.features),)) if self.training else shown


def test_training_adds_the_loss_of_auxiliary_heads() -> None:
    images = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    labels = torch.arange(8) % 4
    result = train_classifier(
        Twofold(),
        ImageSet(images, labels),
        Recipe(epochs=1, batch_size=8, flip=False),
        Defense(Defense.Options()),
        seed=0,
        device=torch.device("cpu"),
        progress=lambda done, total, unit: None,
    )
    twin = Twofold()
    features = (images / 255 * 2 - 1).mean((2, 3))
    losses = [nn.functional.cross_entropy(layer(features), labels) for layer in (twin.head, twin.further)]
    assert result.losses == [pytest.approx(float(sum(losses).detach()), abs=1e-5)]
    assert not torch.equal(result.model.further.weight, twin.further.weight)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"network": "resnet18", "auxiliary": True}, "resnet18 has no auxiliary head"),
        ({"network": "inception_v3", "auxiliary": True}, "needs size=299, not None"),
        ({"network": "inception_v3", "auxiliary": True, "size": 224}, "needs size=299, not 224"),
        ({"weights": "v3"}, "weights"),
    ],
)
def test_options_that_do_not_fit_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TorchvisionArchitecture.Options(**given)


@pytest.mark.parametrize("network", torchvision_models.IMAGENET)
def test_the_files_of_weights_are_torchvisions(network: str) -> None:
    """v1 as at the time of the papers; v2 as the papers' present code, which takes torchvision's default."""
    known = torchvision.models.get_model_weights(network)
    for version, weights in (("v1", known["IMAGENET1K_V1"]), ("v2", known.DEFAULT)):
        (file,) = TorchvisionArchitecture(options(network, weights=version)).weight_files()
        assert file.url == weights.url
        assert file.url.endswith(f"/{file.name}")
        assert file.sha256 == file.name[-12:-4]


def test_a_restored_inception_transforms_its_input_as_before(published, tmp_path: Path) -> None:
    published("inception_v3", theirs("inception_v3").state_dict())
    architecture = TorchvisionArchitecture(options("inception_v3"))
    made, restored = (
        architecture.build(NetworkTask(num_classes=7, resolution=80, weights=tmp_path, restoring=restoring))
        for restoring in (False, True)
    )
    restored.load_state_dict(made.state_dict())
    images = torch.rand(1, 3, 80, 80)
    assert torch.equal(restored.eval()(images), made.eval()(images))
    assert not torch.equal(images, torchvision_networks.TransformInput()(images))


def test_the_head_is_new_and_follows_the_seed(published, tmp_path: Path) -> None:
    published("resnet18", theirs("resnet18", 1000).state_dict())
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        task = NetworkTask(num_classes=5, resolution=32, weights=tmp_path)
        made.append(TorchvisionArchitecture(options("resnet18")).build(task).head.weight)
    assert made[0].shape == (5, 512)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_weights_with_the_old_names_of_densenets(published, tmp_path: Path) -> None:
    state = theirs("densenet169").state_dict()
    old = {
        key.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): tensor for key, tensor in state.items()
    }
    assert old.keys() != state.keys()
    published("densenet169", old)
    task = NetworkTask(num_classes=7, resolution=32, weights=tmp_path)
    model = TorchvisionArchitecture(options("densenet169")).build(task)
    first = model.get_parameter("blocks.1.0.denselayer1.conv1.weight")
    assert torch.equal(first, state["features.denseblock1.denselayer1.conv1.weight"])


def test_restoring_asks_for_no_weights(tmp_path: Path) -> None:
    task = NetworkTask(num_classes=3, resolution=32, restoring=True, weights=tmp_path)
    assert TorchvisionArchitecture(options("resnet18")).build(task).head.out_features == 3
    assert list(tmp_path.iterdir()) == []


def test_images_are_resized_to_the_size_asked_for() -> None:
    task = NetworkTask(num_classes=3, resolution=32)
    torch.manual_seed(0)
    model = TorchvisionArchitecture(options("resnet18", pretrained=False, size=64)).build(task)
    hidden = model.eval().activations(torch.rand(1, 3, 32, 32)).hidden
    assert hidden[0].shape[2] == 16  # a quarter of 64


def test_another_networks_or_damaged_weights_are_refused(published, tmp_path: Path) -> None:
    task = NetworkTask(num_classes=3, resolution=32, weights=tmp_path)
    path = published("resnet18", {"conv1.weight": torch.zeros(64, 3, 7, 7)})
    with pytest.raises(MiaBenchError, match="other weights than those of resnet18"):
        TorchvisionArchitecture(options("resnet18")).build(task)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MiaBenchError, match="is not the file published"):
        TorchvisionArchitecture(options("resnet18")).build(task)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # images need no gradient
@pytest.mark.parametrize("name", ["resnet18", "densenet169"])
def test_gradients_of_each_image_are_those_of_the_image_alone(name: str) -> None:
    torch.manual_seed(0)
    model = torchvision_networks.network(name, 3)
    model = replace_batch_norm(model, 8).double().train()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with per_sample_gradients(model):
        model(images).square().sum(1).mean().backward()
        found = [p.grad_sample.clone() for p in model.parameters()]
    for number in range(2):
        model.zero_grad()
        model(images[number : number + 1]).square().sum().backward()
        for parameter, gradients in zip(model.parameters(), found, strict=True):
            torch.testing.assert_close(gradients[number], parameter.grad)

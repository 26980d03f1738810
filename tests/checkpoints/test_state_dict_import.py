"""State dicts of public PyTorch re-implementations: a network built here with their layers and names, and refusal."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch7_models import tiny_network

from sharpmask.checkpoints import load_network
from sharpmask.checkpoints.state_dict_import import import_state_dict
from sharpmask.checkpoints.torch7_convert import convert_state_dict, is_state_dict
from sharpmask.errors import ModelError


class Block(nn.Module):
    def __init__(self, inputs, width, stride, project):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        pad = nn.ReplicationPad2d(
            1
        )  # theirs mirrors without the edge pixel; this is ours, so that all numbers can be compared
        self.conv2, self.bn2 = nn.Sequential(pad, nn.Conv2d(width, width, 3, stride, bias=False)), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
        self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width)) if project else None

    def forward(self, x):
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class SymmetricPad(nn.Module):
    def forward(self, x):
        return torch.cat([x[..., :3].flip(-1), x, x[..., -3:].flip(-1)], -1)


class Both(nn.Module):
    def forward(self, x):
        pad = SymmetricPad()
        return pad(pad(x).transpose(2, 3)).transpose(2, 3)


class Reimplementation(nn.Module):
    """DeepMask of 32 pixels, trunk width 2, with the module names of the re-implementations."""

    def __init__(self):
        super().__init__()
        first = nn.Sequential(Both(), nn.Conv2d(3, 2, 7, 2, bias=False))
        stages, channels = [], 2
        for stage, count in enumerate((3, 4, 6)):
            width = 2 * 2**stage
            blocks = []
            for block in range(count):
                blocks.append(Block(channels, width, 2 if stage and not block else 1, not block))
                channels = 4 * width
            stages.append(nn.Sequential(*blocks))
        trunk = nn.Sequential(first, nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *stages)
        self.trunk = nn.Sequential(trunk, nn.Sequential(nn.Conv2d(32, 3, 1), nn.ReLU(), nn.Conv2d(3, 5, 2)))
        self.maskBranch = nn.Sequential(nn.Sequential(nn.Conv2d(5, 16, 1)), nn.Identity())
        dropout = nn.Dropout()
        self.scoreBranch = nn.Sequential(
            dropout, nn.Conv2d(5, 6, 1), nn.Threshold(0, 1e-6), dropout, nn.Conv2d(6, 1, 1)
        )

    def forward(self, x):
        features = self.trunk[0](x)[:, :, 1:-1, 1:-1]
        encoding = self.trunk[1](features)
        return self.maskBranch(encoding).view(-1, 4, 4), self.scoreBranch(encoding).flatten()


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Reimplementation()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("form", ["plain", "checkpoint", "safetensors"])
def test_same_numbers(model, tmp_path, form):
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.pth.tar")
    state = model.state_dict()
    if form == "safetensors":
        save_file(state, path)
    elif form == "checkpoint":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        torch.save(state, path)
    network = import_state_dict(path, name="theirs")
    assert network.spec == tiny_network(refinement=False).spec.__class__(
        name="theirs", trunk_width=2, patch_size=32, features=3, encoding=5, mask_side=4, score_hidden=6
    )
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        masks, scores = model((images - network.mean) / network.std)
        found = network(images)
    torch.testing.assert_close(found.mask_logits, masks, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.score_logits, scores, rtol=1e-4, atol=1e-4)


def test_written_file(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert is_state_dict(tmp_path / "model.pth") and not is_state_dict(tmp_path / "other")
    assert "re-implementation" in convert_state_dict(tmp_path / "model.pth", tmp_path / "model.safetensors")
    written = load_network(tmp_path / "model.safetensors")
    torch.testing.assert_close(written.state_dict(), import_state_dict(tmp_path / "model.pth").state_dict())


def test_deepmask_of_a_sharpmask(model, tmp_path):
    state = {key.replace("maskBranch.", "maskBranchDM."): value for key, value in model.state_dict().items()}
    state["refs.0.weight"] = torch.zeros(5, 16, 2, 2)
    torch.save(state, tmp_path / "model.pth")
    assert import_state_dict(tmp_path / "model.pth").spec.refinement is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("trunk.0.5.0.bn2.running_var"), r"trunk\.0\.5\.0\.bn2\.running_var"),
        (lambda state: state.update({"trunk.0.7.0.conv1.weight": torch.zeros(1)}), r"trunk\.0\.7\.0\.conv1\.weight"),
        (lambda state: state.update({"scoreBranch.4.weight": torch.zeros(1, 7, 1, 1)}), "score_head"),
        (lambda state: state.update({"trunk.1.2.weight": torch.zeros(5, 3, 1, 2)}), "2 cells"),
        (lambda state: state.update({"trunk.0.0.1.weight": torch.zeros(9, 3, 7, 7)}), "width 9"),
    ],
)
def test_other_state_dicts_are_refused(model, tmp_path, change, message):
    state = model.state_dict()
    change(state)
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(ModelError, match=message):
        import_state_dict(tmp_path / "model.pth")


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_files_that_are_no_state_dict(tmp_path, capsys):
    path = tmp_path / "model.pth"
    for content in (b"", b"nothing", pickle.dumps({"state_dict": Evil()})):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.pth"):
            import_state_dict(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="no state dict"):
        import_state_dict(path)
    with pytest.raises(ModelError, match="cannot be read"):
        import_state_dict(tmp_path / "missing.pth")
    assert "run" not in capsys.readouterr().out

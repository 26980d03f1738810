"""`sharpmask export` with the bundled model, and its file in the hands of a program without PyTorch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sharpmask
from sharpmask.checkpoints import load_network
from sharpmask.cli.main import main
from sharpmask.errors import SharpMaskError
from sharpmask.export import write
from sharpmask.export.check import Agreement, compare, onnx_runner, synthetic_picture
from sharpmask.export.pipeline import Settings
from sharpmask.images import read_image

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTOS = [str(EXAMPLES / "riders.jpg"), str(EXAMPLES / "suitcases.jpg")]
SCALES, TOP = (-2.0, -1.5, -1.0), 60
FIXED = ["--scales", "-2,-1.5,-1", "--top", str(TOP)]
TOLD = re.compile(
    r"(\S+): (\d+) windows, ([\d.]+) % the same; largest difference of a score (\S+); mean IoU .* ([\d.]+)"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file, and what was told on standard error."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    command = ["export", "sharpmask-lite0", "--to", "onnx", "--output", str(path), *FIXED, "--check", *PHOTOS]
    done = subprocess.run(
        [sys.executable, "-m", "sharpmask.cli.main", *command], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return path, done.stderr


def test_it_agrees_with_pytorch_and_says_so(exported: tuple[Path, str]) -> None:
    path, told = exported
    assert [item.name for item in path.parent.iterdir()] == ["model.onnx"]
    lines = TOLD.findall(told)
    assert [line[0] for line in lines] == PHOTOS
    for _, count, same, score, iou in lines:
        assert int(count) > 50 and float(same) > 98 and float(score) < 1e-3 and float(iou) > 0.99
    assert [line for line in told.splitlines() if not line.startswith("sharpmask export: ")] == []


def test_a_program_without_torch(exported: tuple[Path, str], tmp_path: Path) -> None:
    """The example's masks are those of the proposer, and it draws them."""
    script = """
import sys
for name in ("torch", "sharpmask"):
    sys.modules[name] = None
import numpy as np
import onnx_only
from PIL import Image
scores, masks = onnx_only.find(sys.argv[1], Image.open(sys.argv[2]).convert("RGB"))
np.savez_compressed("found.npz", scores=scores, masks=np.stack(list(masks)))
onnx_only.main(*sys.argv[1:3], "overlay.png")
"""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    subprocess.run(
        [sys.executable, "-c", script, str(exported[0]), PHOTOS[0]], cwd=tmp_path, env=environment, check=True
    )
    found = np.load(tmp_path / "found.npz")
    expected = sharpmask.load(scales=SCALES, top=TOP, ranking="paper", device="cpu").propose(PHOTOS[0])
    kept = found["masks"].any(axis=(1, 2))
    np.testing.assert_allclose(found["scores"][kept], expected.scores, atol=1e-3)
    ours, theirs = found["masks"][kept], expected.masks
    ious = [(a & b).sum() / (a | b).sum() for a, b in zip(ours, theirs, strict=True)]
    assert np.mean(ious) > 0.97
    with Image.open(PHOTOS[0]) as photo, Image.open(tmp_path / "overlay.png") as drawn:
        assert drawn.size == photo.size
        changed = np.asarray(photo.convert("RGB")).astype(int) - np.asarray(drawn.convert("RGB"))
    share = (abs(changed).max(axis=2) > 20).mean()
    assert 0.02 < share < 0.9


def test_a_graph_that_disagrees_is_not_kept(
    exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    model = onnx.load(str(exported[0]))
    monkeypatch.setattr(write, "build_pipeline", lambda network, settings: model)
    network = load_network()
    settings, pictures = Settings("other", SCALES, TOP), {"a picture": synthetic_picture()}
    output = tmp_path / "model.onnx"
    network.deepmask.score_head.score.bias.data += 0.5
    with pytest.raises(SharpMaskError, match="does not agree with PyTorch on a picture; nothing was written") as caught:
        write.export(network, settings, "onnx", output, pictures)
    assert caught.value.status == 1
    assert list(tmp_path.iterdir()) == []
    output.write_text("an older one")
    with pytest.raises(SharpMaskError, match="that no scale has"):
        write.export(network, Settings("other", (-0.25,), TOP), "onnx", output, pictures)
    assert output.read_text() == "an older one" and len(list(tmp_path.iterdir())) == 1


def test_what_agreement_is(exported: tuple[Path, str]) -> None:
    """Masks moved by a few pixels are noticed, though windows and scores are right."""
    runner, settings = onnx_runner(exported[0]), Settings("sharpmask-lite0", SCALES, TOP)
    photo = read_image(PHOTOS[0])

    def shifted(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        scores, boxes, windows, mask_logits = runner(pixels)
        return scores, boxes, windows, np.roll(mask_logits, 4, axis=2)

    found = compare(shifted, load_network(), settings, photo)
    assert found.same_windows > 0.97 and found.mask_iou < 0.97 and not found.good
    assert Agreement(10, 1.0, 0.0, 1.0).good and not Agreement(10, 0.9, 0.0, 1.0).good


def test_openvino_writes_two_files(exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    import onnx

    model = onnx.load(str(exported[0]))
    monkeypatch.setattr(write, "build_pipeline", lambda network, settings: model)
    settings = Settings("sharpmask-lite0", SCALES, TOP)
    found = write.export(
        load_network(), settings, "openvino", tmp_path / "model.xml", {"suitcases": read_image(PHOTOS[1])}
    )
    assert found["suitcases"].good
    assert sorted(item.name for item in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    stored = openvino.Core().read_model(str(tmp_path / "model.xml"))
    assert stored.get_rt_info(["sharpmask", "model"]).value == "sharpmask-lite0"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["sharpmask-lite0", "--to", "onnx", "--output", "model.xml"], 2, "must end in .onnx"),
        (["sharpmask-lite0", "--to", "onnx", "--output", "absent/model.onnx"], 2, "absent does not exist"),
        (["sharpmask-lite0", "--to", "onnx", "--output", "m.onnx", "--top", "0"], 2, "top 0: must be at least 1"),
        (["sharpmask-lite0", "--to", "onnx", "--output", "m.onnx", "--check", "none.jpg"], 2, "none.jpg: no such file"),
        (["none.safetensors", "--to", "onnx", "--output", "m.onnx"], 1, "no weights file none.safetensors"),
    ],
)
def test_mistakes(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == status
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "target"),
    [("onnx", "onnx"), ("onnxruntime", "onnx"), ("onnxscript", "openvino"), ("openvino", "openvino")],
)
def test_missing_packages(
    package: str, target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", "sharpmask-lite0", "--to", target, "--output", "x"]) == 2
    error = capsys.readouterr().err
    assert f"'{package}', which is not installed" in error and f"sharpmask[{target}]" in error

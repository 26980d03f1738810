"""Compatibility with the Torch7 release on whole images: its recordings, and where its geometry differs from ours."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sharpmask.checkpoints.torch7_import import import_torch7
from sharpmask.errors import ConfigError
from sharpmask.networks.deepmask import DenseOutput
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals import compat
from sharpmask.proposals.compat import Torch7Proposer, mask_place, ranked_windows, resize_mask
from sharpmask.proposals.proposer import Proposer

ORACLE = Path(__file__).resolve().parents[3] / "shared" / "torch7-oracle"
SCALES = (-1.0, -0.5, 0.0, 0.5)
needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason=f"no Torch7 oracle files at {ORACLE}")
recordings = pytest.mark.parametrize(
    ("folder", "run"), [(f, r) for f in ("cuda", "legacy") for r in ("deepmask", "sharpmask", "sharpmask_dm")]
)


@pytest.fixture(autouse=True)
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recorded(folder, run):
    """The recordings of one run, its photo as (H,W,3) uint8, and the network."""
    with np.load(ORACLE / folder / "oracle.npz") as file:
        values = {key.split("/")[1]: file[key] for key in file.files if key.startswith(f"infer_{run}/")}
    photo = np.round(values["image"].transpose(1, 2, 0) * 255).astype(np.uint8)
    return values, photo, import_torch7(ORACLE / folder / f"{run.removesuffix('_dm')}.t7")[0]


# ---- the recordings


@needs_oracle
@recordings
def test_windows_scores_and_masks_of_the_recorded_photo(folder, run):
    values, photo, network = recorded(folder, run)
    np.testing.assert_allclose(2.0 ** np.array(SCALES), values["scales"])
    found = Torch7Proposer(network, top=20, scales=SCALES, coarse=run.endswith("dm"), device="cpu").propose(photo)
    scores, scales, _, _ = values["topScores"].T
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4)
    np.testing.assert_array_equal(found.scales, np.array(SCALES, np.float32)[scales.astype(int) - 1])
    masks = np.unpackbits(values["masks"], axis=-1)[..., : photo.shape[1]].astype(bool)
    both, either = (found.masks & masks).sum((1, 2)), (found.masks | masks).sum((1, 2))
    assert (both / either).min() > 0.999


@needs_oracle
@recordings
def test_every_step_of_the_recorded_photo(folder, run):
    values, photo, network = recorded(folder, run)
    proposer = Torch7Proposer(network, top=20, scales=SCALES, coarse=run.endswith("dm"), device="cpu")
    maps, outputs = [], []
    with torch.inference_mode():
        for number, exponent in enumerate(SCALES, start=1):
            padded = proposer._padded(photo, exponent)
            if f"pyramid_{number}" in values:
                np.testing.assert_allclose(padded[0, :, 32:-32, 32:-32].numpy(), values[f"pyramid_{number}"], atol=1e-6)
            outputs.append(network.dense(padded))
            maps.append(values[f"scoremap_logit_{number}"])
            found = outputs[-1].score_logits[0].numpy()
            assert found.shape == maps[-1].shape
            assert np.abs(found - maps[-1]).max() < 1e-4 * np.abs(maps[-1]).max()
        windows = ranked_windows([torch.from_numpy(item) for item in maps], 20)
        table = np.stack([windows["score"], windows["scale"] + 1, windows["row"] + 1, windows["col"] + 1], axis=1)
        np.testing.assert_array_equal(table.astype(np.float32), values["topScores"])
        masks = proposer._masks(outputs, windows).numpy()
    assert np.abs(masks - values["topMasks0"]).max() < 1e-4 * np.abs(values["topMasks0"]).max()
    for number, mask in enumerate(values["topMasks0"]):
        resized = values[f"resized_{number:02d}"]
        np.testing.assert_allclose(resize_mask(mask, len(resized)), resized, atol=1e-5 * np.abs(resized).max())


# ---- where the default and the released geometry differ


class OneWindow(torch.nn.Module):
    """A network that likes one grid cell only, and says "object" in the whole window of the first row and column."""

    def __init__(self, cell: tuple[int, int], *, refinement: str | None = None, side: int = 8) -> None:
        super().__init__()
        self.cell, self.asked, self.sizes = cell, [], []
        self.spec = SimpleNamespace(patch_size=32, stride=16, mask_side=side, refinement=refinement)

    def dense(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        h, w = (side // 16 - 1 for side in images.shape[2:])
        scores = torch.full((1, h, w), -5.0)
        scores[0, self.cell[0], self.cell[1]] = 3.0
        return DenseOutput(scores, torch.zeros(1, 4, h, w), ())

    def decode(self, dense, batch_index, rows, cols):
        self.asked += list(zip(rows.tolist(), cols.tolist(), strict=True))
        return torch.full((len(rows), 32 if self.spec.refinement else 8, 32 if self.spec.refinement else 8), 4.0)


@pytest.mark.parametrize(
    ("cell", "taken"),
    [((3, 2), (2, 3)), ((0, 2), (0, 3)), ((1, 1), (0, 2)), ((4, 6), (4, 0)), ((0, 6), (0, 0)), ((6, 0), (5, 1))],
)
def test_default_and_compat_geometry(cell, taken):
    """The correct window of cell (r, c) is centred at pixel (16 r, 16 c) of the rescaled image. The release takes the
    one a row up and a column right; from the last column it goes to the first of the same row; the first row stays."""
    photo = np.zeros((96, 96, 3), np.uint8)
    network = OneWindow(cell)
    default = Proposer(network, top=1, scales=[0.0], device="cpu").propose(photo)
    assert network.asked.pop() == cell
    np.testing.assert_array_equal(
        default.windows, [[16 * cell[1] - 16, 16 * cell[0] - 16, 16 * cell[1] + 16, 16 * cell[0] + 16]]
    )
    network = OneWindow(cell)
    found = Torch7Proposer(network, top=1, scales=[0.0], device="cpu").propose(photo)
    assert network.asked.pop() == taken
    np.testing.assert_array_equal(
        found.windows, [[16 * taken[1] - 16, 16 * taken[0] - 16, 16 * taken[1] + 16, 16 * taken[0] + 16]]
    )
    assert found.scores == default.scores


def test_place_and_size_use_the_nominal_scale():
    """At 2^-0.5 an image of 100 pixels becomes 71, a scale of 0.71; the release divides by 0.7071… and rounds down."""
    photo = np.zeros((100, 100, 3), np.uint8)
    default = Proposer(OneWindow((3, 2)), top=1, scales=[-0.5], device="cpu").propose(photo)
    np.testing.assert_allclose(default.windows, [[16 / 0.71, 32 / 0.71, 48 / 0.71, 64 / 0.71]], rtol=1e-5)
    found = Torch7Proposer(OneWindow((3, 2)), top=1, scales=[-0.5], device="cpu").propose(photo)
    np.testing.assert_array_equal(
        found.windows, [[45, 22, 45 + 45, 22 + 45]]
    )  # 32 / 0.7071 = 45.25, 16 / 0.7071 = 22.6
    assert mask_place(0, 2.0**0.5, patch_size=160, stride=16) == -57


def test_padding_ends_with_half_a_window():
    photo = np.zeros((100, 90, 3), np.uint8)
    network = OneWindow((0, 0))
    Torch7Proposer(network, top=1, scales=[0.0], device="cpu").propose(photo)
    Proposer(network, top=1, scales=[0.0], device="cpu").propose(photo)
    assert network.sizes == [(132, 122), (144, 128)]


def test_refined_masks_are_placed_within_the_mask_side_only():
    photo = np.zeros((600, 1200, 3), np.uint8)
    network = OneWindow((5, 60), refinement="refactored")
    found = Torch7Proposer(network, top=1, scales=[0.0], device="cpu").propose(photo)
    assert network.asked == [(4, 61)]  # the mask is that of the window
    np.testing.assert_array_equal(found.windows[0, :2], [31 * 16 - 16, 4 * 16 - 16])  # its place is not


def test_the_last_scale_limits_the_number_of_windows():
    maps = [torch.zeros(4, 5), torch.ones(2, 3)]
    assert len(ranked_windows(maps, 100)) == 6
    assert len(ranked_windows(maps, 4)) == 4
    assert len(ranked_windows(maps[::-1], 100)) == 20


def test_windows_beyond_the_skip_features_see_zeros():
    """Without padding to a multiple of 16 the finer maps may be one cell too short for the last windows."""
    torch.manual_seed(0)
    spec = ModelSpec(
        name="tiny", trunk_width=2, patch_size=32, features=3, encoding=5, mask_side=4, score_hidden=6,
        refinement_width=16, horizontal_width=4, refinement="refactored",
    )  # fmt: skip
    network = build_network(spec)
    photo = np.random.default_rng(0).integers(0, 255, (73, 89, 3), dtype=np.uint8)
    proposer = Torch7Proposer(network, top=100, scales=[0.0, 0.5], device="cpu")
    found = proposer.propose(photo)
    with torch.inference_mode():
        dense = network.dense(proposer._padded(photo, 0.5))
        h, w = dense.score_logits.shape[1:]
        assert any(skip.shape[2] < (h + 1) * 2**stage for stage, skip in enumerate(dense.skips))
        padded = compat._zero_padded(dense, 2)
    assert all(skip.shape[2] >= (h + 1) * 2**stage for stage, skip in enumerate(padded.skips))
    assert len(found) == h * w and (np.diff(found.scores) <= 0).all()


# ---- options


def test_filters_and_limits():
    photo = np.zeros((96, 96, 3), np.uint8)
    network = OneWindow((3, 2))
    proposer = Torch7Proposer(network, scales=[0.0], device="cpu")
    assert len(proposer.propose(photo)) == 49
    assert len(proposer.propose(photo, min_score=0.5)) == 1
    assert len(proposer.propose(photo, nms=0.1)) < 49
    assert len(proposer.propose(photo, top=3)) == 3
    assert len(Torch7Proposer(network, scales=[0.0], min_area=1000, device="cpu").propose(photo)) < 49
    assert len(proposer.propose(photo, threshold=0.99, top=1)) == 1  # empty masks stay
    with pytest.raises(ConfigError, match="threshold"):
        proposer.propose(photo, threshold=1.5)
    with pytest.raises(ConfigError, match="top"):
        Torch7Proposer(network, top=0)
    with pytest.raises(ConfigError, match="coarse"):
        Torch7Proposer(network, coarse=True)


@pytest.mark.parametrize("size", [1, 3, 8, 9, 20, 57])
def test_resize_keeps_constants_and_range(size):
    values = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    resized = resize_mask(values, size)
    assert resized.shape == (size, size)
    assert resized.min() >= values.min() - 1e-6 and resized.max() <= values.max() + 1e-6
    np.testing.assert_allclose(resize_mask(np.full((20, 20), 3.5, np.float32), size), 3.5, rtol=1e-6)

"""How close imported Torch7 models come to outputs recorded from the original programs.

    python benchmarks/torch7_oracle.py FOLDER...

A FOLDER holds deepmask.t7, sharpmask.t7 and oracle.npz. Prints a Markdown table of the largest difference divided by
the largest recorded value, on the recorded batch of patches, with one thread.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from sharpmask.checkpoints.torch7_import import import_torch7
from sharpmask.networks.sharpmask import SharpMask


def difference(found: torch.Tensor, recorded: np.ndarray) -> float:
    expected = torch.from_numpy(recorded).reshape(found.shape)
    return float((found - expected).abs().max() / expected.abs().max())


@torch.inference_mode()
def errors(folder: Path) -> dict[str, float]:
    """Differences of the encoding, both mask branches and the score."""
    recorded = np.load(folder / "oracle.npz")
    deep, _ = import_torch7(folder / "deepmask.t7")
    sharp, _ = import_torch7(folder / "sharpmask.t7")
    assert isinstance(sharp, SharpMask)
    sharp.crop_first = True  # the release's patch mode
    patches = torch.from_numpy(recorded["fwd/input"]) * deep.deepmask.std + deep.deepmask.mean
    encoding = deep.encode_patches(deep.features(patches))
    coarse = deep(patches)
    patches = torch.from_numpy(recorded["fwd_sharp/input"]) * deep.deepmask.std + deep.deepmask.mean
    return {
        "encoding": difference(encoding, recorded["fwd/trunk"]),
        "mask": difference(coarse.mask_logits, recorded["fwd/maskBranch_lowres"]),
        "score": difference(coarse.score_logits, recorded["fwd/scoreBranch"]),
        "refined mask": difference(sharp(patches).mask_logits, recorded["fwd_sharp/output"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    torch.set_num_threads(1)
    for number, folder in enumerate(parser.parse_args().folders):
        found = errors(folder)
        if number == 0:
            print(f"| files | {' | '.join(found)} |\n|{'---|' * (len(found) + 1)}")
        print(f"| `{folder.name}/` | {' | '.join(f'{value:.1e}' for value in found.values())} |")


if __name__ == "__main__":
    main()

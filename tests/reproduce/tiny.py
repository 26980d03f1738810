"""`sharpmask` with every model of the table shrunk to a fraction, as a program that a test can kill.

python tiny.py COMMAND …
"""

import dataclasses
import sys

from sharpmask.cli.main import main
from sharpmask.networks.specs import SPECS, ModelSpec


def shrunk(spec: ModelSpec) -> ModelSpec:
    """Windows of 4 cells and few channels; the schedules of the refinement stay."""
    return dataclasses.replace(
        spec,
        trunk_width=8,
        patch_size=4 * spec.stride,
        features=None if spec.features is None else 8,
        encoding=16,
        mask_side=12,
        score_hidden=8,
        horizontal_width=8,
    )


TINY = {name: shrunk(spec) for name, spec in SPECS.items()}

if __name__ == "__main__":
    SPECS.update(TINY)
    sys.exit(main(sys.argv[1:]))

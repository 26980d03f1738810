"""Every switch that the page of deviations names is there."""

import re
from fnmatch import fnmatchcase

from docs_pages import ROOT

from sharpmask.cli.main import build_parser
from sharpmask.cli.train import settings
from sharpmask.networks.specs import SPECS


def test_switches_exist() -> None:
    page = (ROOT / "docs/deviations.md").read_text(encoding="utf-8")
    actions = [action for name in ("propose", "evaluate") for action in build_parser(name)._actions]
    options = {flag for action in actions for flag in action.option_strings}
    fields, models, seen = settings(), 0, 0
    for row in re.findall(r"^\|.*\|$", page, flags=re.M):
        for code in re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1]):
            for word in code.split():
                if word.startswith("--"):
                    assert word in options, row
                elif re.match(r"(deepmask|sharpmask)\.\w", word):
                    assert word.split("=")[0] in fields, row
                elif re.match(r"(deepmask|sharpmask|multiscale|\*)-", word):
                    assert any(fnmatchcase(name, word) for name in SPECS), row
                    models += 1
                else:
                    continue
                seen += 1
    assert seen > 30 and models > 5


def test_the_defaults_it_tells() -> None:
    parser = build_parser("train")
    args = parser.parse_args(["--annotations=a", "--images=b", "--output=c"])
    deepmask = args.deepmask
    assert (deepmask.weight_decay, deepmask.negative_shift, deepmask.negative_octaves) == (5e-4, 48, 2.5)
    assert (deepmask.batches, deepmask.balance, deepmask.mask_weight) == ("alternate", "category", 32)
    assert (deepmask.optimiser, deepmask.momentum, args.sharpmask.momentum) == ("sgd", 0.9, 0.9)
    assert build_parser("propose").get_defaults().threshold == 0.2
    nearest = {name for name, spec in SPECS.items() if spec.upsampling == "nearest" and spec.refinement}
    assert not any("lite" in name for name in nearest) and {"sharpmask-resnet50", "sharpmask-vgg"} <= nearest
    assert SPECS["sharpmask-resnet50"].stride_on == "3x3" and SPECS["sharpmask-resnet50-caffe"].stride_on == "1x1"

"""Rebuild a study of the SharpMask paper: train its rows, measure them, and set them beside the paper's figures.

trunk, heads, refinement: rows are trained for a short time, measured, and timed in turns. coco: the main table, of
models that are trained already. detection: detectors on the proposals of several methods. qualitative: a page of
pictures. The results lie in OUTPUT/STUDY: a Markdown table, CSV and plots. A run that
was stopped goes on with the same command."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "study", choices=["trunk", "heads", "refinement", "coco", "detection", "qualitative"], help="what to rebuild"
    )
    parser.add_argument(
        "--data",
        type=str,
        default=None,
        metavar="DIR",
        help="COCO as it is unpacked (annotations/instances_val2014.json, val2014/, …; or 2017), or a smaller set: "
        "instances_train.json, train/, instances_val.json, val/; default: the environment variable SHARPMASK_DATA",
    )
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder for runs and results")
    parser.add_argument(
        "--minutes", type=float, default=50.0, help="how long the study may take; sets steps and photos"
    )
    parser.add_argument("--steps", type=int, default=None, help="steps of each row, in place of what --minutes allows")
    parser.add_argument("--photos", type=int, default=None, help="photos to measure on, the first of the annotations")
    parser.add_argument(
        "--min-examples", type=int, default=200, help="detection: objects that a class needs to be learnt"
    )
    parser.add_argument(
        "--schedule",
        choices=["short", "paper"],
        default="short",
        help="paper: the released schedule, days on a GPU, whatever --minutes says",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default=None,
        help="of training; bf16 is faster on GPUs and CPUs that have it; default: the schedule's on a GPU, else fp32",
    )
    parser.add_argument(
        "--base",
        choices=["resnet50", "lite0"],
        default=None,
        help="heads, refinement, detection: the trunk; default: resnet50 on a GPU, the light one on a CPU",
    )
    parser.add_argument(
        "--trunk-weights",
        type=str,
        default=None,
        metavar="FILE",
        help="ImageNet weights with torchvision's or timm's names (safetensors), or a trained model with that trunk",
    )
    parser.add_argument("--vgg-weights", type=str, default=None, metavar="FILE", help="trunk: the same for VGG-A")
    parser.add_argument(
        "--caffe", action="store_true", help="the ResNet weights have the stride on the 1x1 convolutions (MSRA, Keras)"
    )
    parser.add_argument(
        "--model",
        type=str,
        default=None,
        help="coco, detection, qualitative: the SharpMask to measure; refinement: the model whose DeepMask is refined",
    )
    parser.add_argument(
        "--deepmask", type=str, default=None, metavar="MODEL", help="coco, qualitative: a DeepMask of its own"
    )
    parser.add_argument("--images", nargs="+", type=str, default=[], help="qualitative: ids or file names of photos")
    parser.add_argument(
        "--licenses",
        nargs="+",
        type=int,
        default=[],
        metavar="ID",
        help="qualitative: only photos with one of these license ids of the annotations; COCO's 4, 7 and 8 may be "
        "shown to anyone (CC BY, no known restrictions, US government)",
    )
    parser.add_argument("--count", type=int, default=None, help="qualitative: photos to draw at random (default 6)")
    parser.add_argument("--failures", type=int, default=None, help="qualitative: failure cases (default 3)")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, cuda:1, …; default: cuda where available")
    parser.add_argument("--seed", type=int, default=0, help="of training and of the sample of photos")


def run(args: Namespace) -> int:
    from sharpmask.reproduce.datasets import find_data
    from sharpmask.reproduce.report import reproduce
    from sharpmask.reproduce.study import Options

    chosen = args.as_dict()
    study, data, output = (chosen.pop(name) for name in ("study", "data", "output"))
    chosen |= {name: tuple(chosen[name]) for name in ("images", "licenses")}
    options = Options(data=find_data(data), output=Path(output), **chosen)
    print(reproduce(study, options, lambda message: print(message, file=sys.stderr)))
    return 0

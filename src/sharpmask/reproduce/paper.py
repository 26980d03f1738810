"""What the papers published, to be set beside what is measured here: percent, and seconds an image.

DeepMask: Pinheiro, Collobert, Dollár, NIPS 2015 (arXiv 1506.06204). SharpMask: Pinheiro, Lin, Collobert, Dollár, ECCV
2016 (arXiv 1603.08695). A figure that is not here is not known to this project, which does not say that the papers
lack it. Box figures of SharpMask and its zooms are those of the authors' released models.
"""

HARDWARE = "NVIDIA Tesla K40m"
DATA = "COCO 2014: trained on train, measured on the first 5,000 images of val"
CITATION = "the SharpMask paper (arXiv 1603.08695)"

Figures = dict[str, float]


def _ars(kind: str, *values: float | None) -> Figures:
    named = zip((f"{kind} AR@10", f"{kind} AR@100", f"{kind} AR@1000"), values, strict=True)
    return {name: value for name, value in named if value is not None}


_DEEPMASK = {**_ars("box", 15.3, 31.3, 44.6), **_ars("mask", 12.6, 24.5, 33.1), "mask AUC": 18.3, "total time": 1.59}
_HEAD_C = {**_ars("box", 18.7, 34.9, 46.5), **_ars("mask", 14.4, 25.8, 33.1), "mask AUC": 19.4, "total time": 0.46}
_SHARPMASK = {**_ars("box", 19.8, 36.7, 49.0), **_ars("mask", 15.6, 27.6, 35.5), "mask AUC": 20.9, "total time": 0.76}

# study -> row -> metric -> figure
PAPER: dict[str, dict[str, Figures]] = {
    "trunk": {
        "deepmask-vgg": {"upper bound": 36.6, "mask time": 1.32},
        "w160-p4-d8-vgg": {"upper bound": 35.5, "mask time": 0.58},
        "w160-p4-d39": {"upper bound": 37.0},
        "w160-p4-d39-f128": {"upper bound": 36.9, "mask time": 0.45},
    },
    "heads": {
        # The paper's row is DeepMask itself, hence the original head on VGG-A.
        "original": _DEEPMASK,
        "A": {"total time": 0.51},
        "B": {"total time": 0.50},
        "C": _HEAD_C,
    },
    "refinement": {"deepmask": _HEAD_C, "k32": _SHARPMASK},
    "coco": {
        "deepmask": _HEAD_C,
        "sharpmask": _SHARPMASK,
        "sharpmask-zoom": {**_ars("box", 20.2, 39.7, 53.3), **_ars("mask", None, 30.3, 39.2), "mask AUC": 22.4},
        "sharpmask-zoom2": {**_ars("mask", None, 30.7, 40.8), "mask AUC": 22.5},
        "selective-search": _ars("mask", 2.5, 9.5, 23.0),
    },
}

# Methods of the paper's main table that are not measured here: label -> figures.
OTHERS: dict[str, Figures] = {
    "EdgeBoxes": _ars("box", 7.4, 17.8, 33.8),
    "Rigor": _ars("mask", None, 9.4, 25.3),
    "Geodesic": _ars("mask", 2.3, 12.3, 25.3),
    "MCG": {**_ars("box", 10.1, 24.6, 39.8), **_ars("mask", 7.7, 18.6, 29.9)},
    "DeepMask (VGG-A)": _DEEPMASK,
    "DeepMaskZoom (VGG-A)": {**_ars("box", 15.0, 32.6, 48.2), **_ars("mask", 12.7, 26.1, 36.6)},
}

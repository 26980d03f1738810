"""The image pyramid as ONNX operators: what `proposals.pyramid` does, for images of any size.

The antialiased resize is made of basic operators. ONNX has one of its own, but the runtimes do not agree on it: beside
PyTorch's, ONNX Runtime's differs by up to 13 grey levels along the picture's edges, and OpenVINO's does not smooth at
all (measured on examples/riders.jpg at scale 2^-2.5). This one repeats the arithmetic of PyTorch on 8-bit pixels,
columns first, weights in whole parts of a power of two, both results rounded to 8 bits. Places are computed with
integers that fit into 32 bits, which is what OpenVINO has.
"""

from dataclasses import dataclass
from fractions import Fraction

from sharpmask.export.builder import GraphBuilder
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.pyramid import GREY


@dataclass(frozen=True)
class Level:
    """One rescaled image in the graph; all but `images` are scalars.

    Attributes:
        images: (1,3,Hp,Wp) float32 in [0,1], padded.
        size: height and width of the rescaled image.
        cells: rows and columns of windows, as `Grid.cells`.
        padded_cells: rows and columns of the network's output, as `Grid.padded_cells`.
    """

    images: str
    size: tuple[str, str]
    cells: tuple[str, str]
    padded_cells: tuple[str, str]


def add_level(b: GraphBuilder, turned: str, image_size: tuple[str, str], exponent: float, spec: ModelSpec) -> Level:
    """The image rescaled by 2^exponent and padded with grey.

    Args:
        turned: the image as (W,H,3) float32 in 0…255, columns first.
        image_size: its height and width.
    """
    size = tuple(add_rescaled_side(b, side, exponent) for side in image_size)
    heights, widths = image_size
    columns = _resample(b, turned, widths, size[1])  # (w,H,3)
    pixels = _resample(b, b("Transpose", columns, perm=[1, 0, 2]), heights, size[0])  # (h,w,3)
    images = b("Unsqueeze", b("Div", b("Transpose", pixels, perm=[2, 0, 1]), 255.0), [0])
    steps = [b("Div", b("Add", side, spec.stride - 1), spec.stride) for side in size]
    half = spec.patch_size // 2
    after = [
        b("Sub", b("Add", b("Mul", step, spec.stride), spec.patch_size - half), side)
        for step, side in zip(steps, size, strict=True)
    ]
    pads = b.vector(0, 0, half, half, 0, 0, *after)
    cells = [b("Add", b("Div", side, spec.stride), 1) for side in size]
    padded = [b("Add", step, 1) for step in steps]
    return Level(
        b("Pad", images, pads, GREY, mode="constant"),
        (size[0], size[1]),
        (cells[0], cells[1]),
        (padded[0], padded[1]),
    )


def scale_fraction(exponent: float) -> Fraction:
    """2^exponent as a fraction small enough for 32 bits with sides of 32,768 pixels. Single sides come out a pixel
    longer or shorter than with doubles, at the usual scales only beyond 5,000 pixels; the grid follows them."""
    factor = 2.0**exponent
    return Fraction(factor).limit_denominator(int(min(2**14, 2**15 / factor)))


def add_rescaled_side(b: GraphBuilder, side: str, exponent: float) -> str:
    """A side rounded to whole pixels after rescaling, at least 1; see `rescaled_grid`."""
    factor = scale_fraction(exponent)
    doubled = b("Add", b("Mul", side, 2 * factor.numerator), factor.denominator)
    return b("Max", b("Div", doubled, 2 * factor.denominator), 1)


def _resample(b: GraphBuilder, pixels: str, before: str, after: str) -> str:
    """Resize the first axis of (n,k,3) from `before` to `after`, with antialiasing, to whole grey levels."""
    places, weights = _taps(b, before, after)  # (n',T) each
    lines = b("Reshape", pixels, b.vector(before, -1))  # (n,k*3)
    taps = b("Gather", lines, places, axis=0)  # (n',T,k*3)
    summed = b("MatMul", b("Unsqueeze", weights, [1]), taps)  # (n',1,k*3)
    whole = b("Clip", b("Floor", b("Add", summed, 0.5)), 0.0, 255.0)
    return b("Reshape", whole, b.vector(after, -1, 3))


def _taps(b: GraphBuilder, before: str, after: str) -> tuple[str, str]:
    """For each of `after` pixels the T pixels of `before` that it is made from, and their weights, (n',T) each."""
    # Pixel i has its centre at before * (2 i + 1) / (2 after) source pixels: a whole part and a rest below 1. Distances
    # are computed from the rest, so that 32-bit floats lose nothing in large images.
    double = b("Mul", after, 2)
    numbers = b("Range", 0, after, 1)
    centres = b("Mul", before, b("Add", b("Mul", numbers, 2), 1))
    whole = b("Div", centres, double)
    rest = b("Sub", centres, b("Mul", whole, double))
    part = b("Div", _float(b, rest), _float(b, double))
    longer = b("Max", before, after)
    reach = b("Div", _float(b, longer), _float(b, after))  # of the triangle to either side
    count = b("Div", b("Sub", b("Add", b("Mul", longer, 2), after), 1), after)  # ceil(2 reach)
    begin = b("Floor", b("Add", b("Sub", part, reach), 0.5))
    steps = b("Add", b("Unsqueeze", begin, [1]), b("Unsqueeze", _float(b, b("Range", 0, count, 1)), [0]))
    distance = b("Sub", b("Add", steps, 0.5), b("Unsqueeze", part, [1]))
    weights = b("Relu", b("Sub", 1.0, b("Div", b("Abs", distance), reach)))
    places = b("Add", b("Unsqueeze", whole, [1]), b("Cast", steps, to=_INT64))
    edge = b("Sub", before, 1)
    clipped = b("Max", b("Min", places, edge), 0)
    weights = b("Mul", weights, _float(b, b("Equal", clipped, places)))  # what lies beyond the edge does not count
    weights = b("Div", weights, b("ReduceSum", weights, [1], keepdims=1))
    return clipped, _in_whole_parts(b, weights)


def _in_whole_parts(b: GraphBuilder, weights: str) -> str:
    """Weights rounded as PyTorch does for 8-bit pixels: to the finest power of two at which the largest of them still
    fits into 15 bits."""
    largest = b("ReduceMax", weights, keepdims=0)
    bits = b("Div", b("Log", b("Div", 32767.5, largest)), 0.6931471805599453)
    parts = b("Pow", 2.0, b("Min", b("Sub", b("Ceil", bits), 1.0), 22.0))
    return b("Div", b("Floor", b("Add", b("Mul", weights, parts), 0.5)), parts)


_FLOAT, _INT64 = 1, 7  # ONNX's numbers of these types


def _float(b: GraphBuilder, value: str) -> str:
    return b("Cast", value, to=_FLOAT)

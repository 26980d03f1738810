"""CVAT for images 1.1: one file, `cvat.xml`, to be uploaded as annotations of a task with the same photos.

Masks (the default) as `<mask>`: CVAT's run lengths go row by row over the mask's box, zeros first. Or polygons, a part
each, holes joined to the outside by cuts of no width, the parts of one proposal with the same `group_id`. The photos'
names are file names without folders. Better proposals lie above worse ones (`z_order`). The format has no place for
scores but an attribute of the label: give the task's label a text attribute `score` to see them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from sharpmask.files import atomic_write
from sharpmask.formats.contours import outline
from sharpmask.formats.joining import without_holes
from sharpmask.formats.numbers import exact, pair_list
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import decode_window


@contextmanager
def open_cvat(output: Path, options: FormatOptions) -> Iterator[Write]:
    number = 0
    with atomic_write(output / "cvat.xml") as temporary, open(temporary, "w", encoding="utf-8") as file:
        kind = "polygon" if options.shapes == "polygons" else "mask"
        file.write(_HEAD.format(label=escape(_text(options.label)), kind=kind))

        def write(photo: Photo, proposals: Proposals) -> None:
            nonlocal number
            height, width = photo.size
            name = quoteattr(_text(Path(photo.record["file_name"]).name))
            file.write(f'  <image id="{number}" name={name} width="{width}" height="{height}">\n')
            for index in range(len(proposals)):
                if options.shapes == "polygons":
                    shapes = list(_polygons(proposals, index, options.simplify))
                else:
                    shapes = list(_mask(proposals, index))
                label, order = quoteattr(_text(options.label)), len(proposals) - index
                common = f'label={label} source="auto" occluded="0" z_order="{order}"'
                score = f'<attribute name="score">{exact(proposals.scores[index]):g}</attribute>'
                for tag, attributes in shapes:
                    file.write(f"    <{tag} {common} {attributes}>{score}</{tag}>\n")
            file.write("  </image>\n")
            number += 1

        yield write
        file.write("</annotations>\n")


_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <name>sharpmask</name>
      <mode>annotation</mode>
      <labels>
        <label>
          <name>{label}</name>
          <type>{kind}</type>
          <attributes>
            <attribute>
              <name>score</name>
              <mutable>False</mutable>
              <input_type>text</input_type>
              <default_value></default_value>
              <values></values>
            </attribute>
          </attributes>
        </label>
      </labels>
    </task>
  </meta>
"""


def _text(text: str) -> str:
    """The text with a mark in place of each character that XML cannot hold."""
    return _NOT_IN_XML.sub("\ufffd", text)


def _mask(proposals: Proposals, index: int) -> Iterator[tuple[str, str]]:
    if proposals.areas[index] == 0:
        return
    left, top, right, bottom = (int(value) for value in proposals.boxes[index])
    rle = ", ".join(map(str, row_runs(decode_window(proposals.rles[index], left, top, right, bottom)).tolist()))
    yield "mask", f'rle="{rle}" left="{left}" top="{top}" width="{right - left}" height="{bottom - top}"'


def _polygons(proposals: Proposals, index: int, simplify: float) -> Iterator[tuple[str, str]]:
    for part in outline(proposals, index, simplify):
        points = ";".join(f"{x:g},{y:g}" for x, y in pair_list(without_holes(part)))
        yield "polygon", f'points="{points}" group_id="{index + 1}"'


def row_runs(mask: np.ndarray) -> np.ndarray:
    """Run lengths (K,) of a mask (h,w) row by row, zeros first (so the first is 0 when the first pixel is set)."""
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return np.insert(lengths, 0, 0) if flat[0] else lengths

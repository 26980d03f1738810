"""The page of the qualitative results: one HTML file with its pictures inside."""

import base64
import datetime
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

import sharpmask

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
.photo { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
figure { margin: 0; } img { width: 100%; height: auto; display: block; border-radius: 4px; }
figcaption { font-size: .9rem; margin-top: .3rem; } .red { color: #d21414; font-weight: 600; }
"""


@dataclass(frozen=True)
class Panel:
    """One picture with its title and a line of figures."""

    title: str
    caption: str
    picture: Image.Image


@dataclass(frozen=True)
class Shown:
    """One photo with its pictures side by side."""

    name: str
    panels: Sequence[Panel]


def render_page(groups: Mapping[str, Sequence[Shown]], source: str) -> str:
    """The page as text; `source` says which data and models, code in backticks."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Proposals and true objects</title><style>{_STYLE}</style></head><body>",
        "<h1>Proposals and true objects</h1>",
        "<p>For each annotated object the proposal of highest IoU among the best 1,000, in the object's colour. "
        'An object without any proposal of IoU greater than .5 counts as missed and has a <span class="red">red</span> '
        "outline.</p>",
        f"<p>{_code(source)}; sharpmask {sharpmask.__version__}, {datetime.datetime.now().date().isoformat()}. "
        "The photos belong to the data set: look at their licences before publishing this page.</p>",
    ]
    for title, photos in groups.items():
        parts.append(f"<h2>{html.escape(title)}</h2>")
        for photo in photos:
            parts.append(f'<h3>{html.escape(photo.name)}</h3><div class="photo">')
            parts += [_figure(photo.name, panel) for panel in photo.panels]
            parts.append("</div>")
    return "\n".join([*parts, "</body></html>", ""])


def _figure(name: str, panel: Panel) -> str:
    encoded = io.BytesIO()
    panel.picture.save(encoded, "JPEG", quality=88)
    data = base64.b64encode(encoded.getvalue()).decode("ascii")
    width, height = panel.picture.size
    alt = html.escape(f"{name}, {panel.title}: {panel.caption}", quote=True)
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{alt}">'
        f"<figcaption><strong>{html.escape(panel.title)}</strong>: {html.escape(panel.caption)}</figcaption></figure>"
    )


def _code(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))

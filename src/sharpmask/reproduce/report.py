"""`sharpmask reproduce` without the command line: a study from its options to its page, CSV and plots."""

from collections.abc import Callable

from sharpmask.files import atomic_write
from sharpmask.reproduce.detection import run_detection_study
from sharpmask.reproduce.detection_page import write_detection_page
from sharpmask.reproduce.findings import judge
from sharpmask.reproduce.plots import draw_plots, require_matplotlib
from sharpmask.reproduce.qualitative import run_qualitative
from sharpmask.reproduce.runner import run_study
from sharpmask.reproduce.studies import build_study, check_options
from sharpmask.reproduce.study import Options
from sharpmask.reproduce.tables import markdown, table_csv


def reproduce(name: str, options: Options, say: Callable[[str], None]) -> str:
    """Run one study, write its results, and return a line that says where they are.

    Raises:
        SharpMaskError: an option, data or weights that cannot be used, or a missing extra; before anything is trained.
    """
    check_options(name, options)
    if name == "qualitative":
        return f"{run_qualitative(options)}, and its pictures beside it, each as PNG and all on one sheet"
    require_matplotlib()
    if name == "detection":
        page = write_detection_page(run_detection_study(options, say), options.output / name)
        return f"{page}, with its figures as CSV and a plot beside it"
    results = run_study(build_study(name, options), options, say)
    folder = options.output / name
    pictures = draw_plots(results, folder)
    with atomic_write(folder / f"{name}.csv") as temporary:
        temporary.write_text(table_csv(results), encoding="utf-8")
    page = folder / f"{name}.md"
    with atomic_write(page) as temporary:
        temporary.write_text(markdown(results, pictures), encoding="utf-8")
    verdicts = [verdict.verdict for verdict in judge(results.study, results.measured, results.times)]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    return f"{page}; of the paper's orderings {counts}"

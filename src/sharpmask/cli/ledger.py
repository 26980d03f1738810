"""Set finished training runs side by side: settings, cost, and what was measured of them, as a Markdown table."""

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="output folders of `sharpmask train`")
    parser.add_argument(
        "--output",
        type=str,
        default=None,
        metavar="PAGE.md",
        help="put the table into this page, between <!-- ledger --> and <!-- end ledger -->; default: print it",
    )


def run(args: Namespace) -> int:
    from sharpmask.training.ledger import put_between_marks, read_rows, table

    text = table(read_rows(args.runs))
    if args.output is None:
        print(text, end="")
    else:
        put_between_marks(text, args.output)
    return 0

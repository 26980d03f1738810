"""What every model of the table costs: parameters, and multiply-accumulates for one photo at one scale.

    python benchmarks/models.py [--size 480 640] [--proposals 1000] [MODEL ...]

Prints a Markdown table; `sharpmask.evaluation.costs` says what is counted, and as which part. Multiply-accumulates are
in billions.
"""

import argparse

from sharpmask.evaluation.costs import PARTS, model_cost
from sharpmask.networks.specs import SPECS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of the table; all by default")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--proposals", type=int, default=1000, help="windows whose masks are decoded")
    args = parser.parse_args()
    unknown = [name for name in args.models if name not in SPECS]
    if unknown:
        parser.error(f"no model named {', '.join(unknown)}; there are: {', '.join(SPECS)}")
    print("| model | parameters, millions | " + " | ".join(PARTS) + " | total, billions |")
    print("|---|" + "---:|" * (len(PARTS) + 2))
    for name in args.models or SPECS:
        cost = model_cost(SPECS[name], tuple(args.size), args.proposals)
        numbers = " | ".join(f"{cost.macs[part]:.2f}" for part in PARTS)
        print(f"| {name} | {cost.parameters / 1e6:.2f} | {numbers} | {cost.total:.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

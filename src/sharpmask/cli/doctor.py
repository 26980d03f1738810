"""Tell what is installed, which devices there are, which models are bundled, and whether the default model works here.

Exit status: 0 when everything that is installed works, 1 when something is broken. What is not installed, such as an
extra, or not bundled is told and counts as no fault."""

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=str, default=None, help="test this model: a bundled name or a .safetensors file"
    )
    parser.add_argument("--device", type=str, default=None, help="test on this device; default: cuda where available")


def run(args: jsonargparse.Namespace) -> int:
    from sharpmask.doctor import examine

    findings = examine(args.model, args.device)
    for finding in findings:
        print(finding)
    broken = sum(finding.broken for finding in findings)
    print(f"{broken} of {len(findings)} points are broken" if broken else "all that is installed works")
    return 1 if broken else 0

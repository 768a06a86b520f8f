"""Run many malformed cases: ``python -m tests.fuzz``."""

from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
import time
from math import inf

from tests.fuzz.campaign import Campaign
from tests.fuzz.child import close_all
from tests.fuzz.judge import Target
from tests.fuzz.targets import names, target


def main() -> int:
    """Run the cases; return 1 if one of them showed a defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=names(), help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--cases", type=int, default=100_000, help="number of cases, of all targets together")
    parser.add_argument("--seed", type=int, default=None, help="for the same cases again; default: new ones")
    parser.add_argument("--seconds", type=float, default=inf, help="time after which a target's cases end")
    parser.add_argument("--coverage", action="store_true", help="be guided by coverage, for one target (atheris)")
    words = parser.parse_args()
    if words.coverage:
        if importlib.util.find_spec("atheris") is None or len(words.targets) != 1:
            parser.error("--coverage needs one target, and atheris: `pip install atheris`, on Python 3.11 to 3.13")
        from tests.fuzz.guided import run_guided

        run_guided(words.targets[0], words.cases)
    chosen = [target(name) for name in words.targets]
    shares = sum(one.share for one in chosen)
    defects = sum(_run(one, max(1, round(words.cases * one.share / shares)), words) for one in chosen)
    return 1 if defects else 0


def _run(chosen: Target, cases: int, words: argparse.Namespace) -> int:
    """Run one target's cases; print what they showed, and return the number of defects."""
    begin_s, campaign = time.monotonic(), Campaign(chosen)
    campaign.run(cases, words.seed, words.seconds)
    close_all()
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    _print(
        f"{chosen.name:10} {campaign.done:7} cases, {campaign.accepted:6} accepted, "
        f"{time.monotonic() - begin_s:5.0f} s, {max(peaks) / 2**10:5.0f} MiB at most, {len(campaign.defects)} defects"
    )
    for where, (case, defect) in campaign.defects.items():
        _print(f"  {campaign.counts[where]} x {where}\n    {str(case)[:600]!r}")
        _print("".join(f"    {line}\n" for line in defect.how.splitlines()[-12:]))
    return len(campaign.defects)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

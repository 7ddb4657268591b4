"""``python -m bench``: measures, prints the table, and keeps it in docs/benchmarks.md."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import click

from bench import consoles, limits, table
from bench.contenders import CONTENDERS
from bench.flow import Flow, build
from bench.measures import FULL, QUICK
from bench.processes import BenchError, end_on_signals
from bench.run import Run, tell

HERE = Path(__file__).parent
REPORT = HERE.parent / "docs" / "benchmarks.md"


@click.command()
@click.option(
    "--quick", is_flag=True, help="A short look: fewer and shorter measurements; docs/benchmarks.md stays as it is."
)
@click.option(
    "--only",
    default="",
    metavar="NAMES",
    help=f"Contenders to measure besides direct, between semicolons; {consoles.NAME!r}, {limits.NAME!r}: these parts.",
)
def main(quick: bool, only: str) -> None:
    """Measures TunnelConsole side by side with the peers that are installed."""
    chosen = [name.strip() for name in only.split(";") if name.strip()]
    parts = {consoles.NAME, limits.NAME}
    known = [*(contender.name for contender in CONTENDERS), *sorted(parts)]
    if strange := [name for name in chosen if name not in known]:
        raise click.UsageError(f"no contender is named {strange[0]}; there are: {'; '.join(known)}")
    direct, *others = CONTENDERS
    wanted = [each for each in others if not chosen or each.name in chosen]
    end_on_signals()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # what is started inherits it
    with tempfile.TemporaryDirectory(prefix="tunnelconsole-bench-") as folder:
        try:
            flow = Flow(build(HERE / "build"), Path(folder))
            run = Run(
                flow, Path(folder), QUICK if quick else FULL, [direct, *(each for each in wanted if not each.missing())]
            )
            run.results.absent.extend(each.name for each in wanted if each.missing())
            if not chosen or not parts.issuperset(chosen):
                run.run()
            if not chosen or consoles.NAME in chosen:
                run.run_consoles()
            if not chosen or limits.NAME in chosen:
                run.run_limits()
            report = table.render(run.results)
            print(report)
            if quick or chosen:
                tell(f"{REPORT.name} keeps full runs only; it stays as it is")
            else:
                table.write(report, REPORT)
        except BenchError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            tell("stopped; nothing was kept")
            sys.exit(130)
    if run.results.own_failures:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The commands that need no Marketo."""

from typing import Annotated, Literal

import typer

Seed = Annotated[int, typer.Option(metavar="N", help="The same seed makes the same leads, changes and faults.")]


def demo(
    source: Annotated[
        Literal["auto", "bulk_extract", "soap"], typer.Option(help="How leads are pulled: as `source` of a pull in the YAML.")
    ] = "auto",
    leads: Annotated[int, typer.Option(min=0, metavar="N", help="Leads in the simulated Marketo, to be pulled.")] = 20_000,
    changes: Annotated[int, typer.Option(min=0, metavar="N", help="Changes in the outbox, to be pushed.")] = 60_000,
    seed: Seed = 1,
    speed: Annotated[
        float, typer.Option(min=0.1, max=1000, metavar="N", help="How many times faster than real time the rehearsal's clock runs.")
    ] = 10,
    faults: Annotated[bool, typer.Option("--faults", help="Let the simulator fail now and then, as the real one does.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the database up afterwards, and say how to look into it.")] = False,
) -> int:
    """Watch it work: a simulated Marketo, a PostgreSQL of its own, and a proof at the end that both sides agree."""
    import asyncio

    from syncd.demo import DemoOptions
    from syncd.demo import run as rehearse

    return asyncio.run(rehearse(DemoOptions(source=source, leads=leads, changes=changes, seed=seed, speed=speed, faults=faults, keep=keep)))


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port on 127.0.0.1; 0 takes any free one.")] = 8899,
    leads: Annotated[int, typer.Option(min=0, metavar="N", help="Leads in its database.")] = 1_000,
    seed: Seed = 1,
    speed: Annotated[float, typer.Option(min=0.1, max=1000, metavar="N", help="How many times faster than real time its clock runs.")] = 1,
    faults: Annotated[bool, typer.Option("--faults", help="Fail now and then, as the real one does.")] = False,
    foreign_jobs_per_hour: Annotated[
        float, typer.Option(min=0, max=1000, metavar="N", help="Import jobs of other integrations, which take slots.")
    ] = 0,
) -> int:
    """Run the simulated Marketo alone, to rehearse a configuration against.

    Prints its endpoints and credentials as a YAML to start from, runs until
    Ctrl-C, and then says what its client did.
    """
    import asyncio

    from syncd.cli.simulate import simulate as serve

    asyncio.run(serve(port, leads, seed, speed, faults, foreign_jobs_per_hour))
    return 0

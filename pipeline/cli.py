"""The command line. Every command imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pipeline.commands import audits
from pipeline.commands.review import review
from pipeline.errors import UserError, nearest, plain
from pipeline.places import Place, place

app = App(
    name="cuescope",
    help="Find, verify and rank the spurious visual cues that a model leans on, class by class.\n\n"
    "Start with `cuescope demo`, then `cuescope init IMAGE_FOLDER` for your own data: it writes a commented "
    "configuration, which `cuescope discover` runs.",
    help_format="plaintext",  # the packages that lay out Markdown would take a fifth of the time of --help
    help_epilogue="Exit codes: 0 done; 1 a fault of Cuescope; 2 something for you to mend, said in one line; 3 from "
    "diff and audit: a finding is new or worse.",
)
app.register_install_completion_command(help="Install completion for bash, zsh or fish, and say where.")
JSON = Parameter(negative="", help="as JSON, for scripts; what wasn't measured is null")
planted = App(name="planted", help="The rendered world: pictures with known truth, and the tiny models trained on it.")
app.command(planted)
bench = App(name="bench", help="Benchmarks: of the findings against planted truth, of memory, speed and the report.")
app.command(bench)
for command in (audits.audit, audits.schedule, audits.history, audits.diff, review):
    app.command(command)


@app.command
def demo(
    *,
    out: Annotated[str, Parameter(help="the audit's folder, or an address such as s3://BUCKET/FOLDER")] = "audits/demo",
    prefect: Annotated[bool, Parameter(negative="--no-prefect", help="run as a Prefect flow")] = True,
) -> None:
    """Run the audit that ships with Cuescope and show its top findings.

    360 rendered pictures and a tiny CLIP that leans on four planted cues; no network, about a minute on two cores.
    """
    config = Path(__file__).parents[1] / "data" / "demo" / "audit.yaml"
    if not config.is_file():
        raise UserError(f"The demo's files are not at {config.parent}: run it from a clone of the repository.")
    run(config, place(out), (), prefect)


@app.command
def discover(
    config: Annotated[Path, Parameter(help="the configuration (YAML); paths in it are relative to its folder")],
    *,
    out: Annotated[
        str | None,
        Parameter(
            help="the audit's folder, or an address such as s3://BUCKET/FOLDER; default audits/<name of the "
            "configuration>"
        ),
    ] = None,
    set: Annotated[
        tuple[str, ...], Parameter(help="change a line of the configuration: --set ablate.budget=5000")
    ] = (),
    dry_run: Annotated[
        bool, Parameter(negative="", help="say what it would take (calls, tokens, money, forwards), and do nothing")
    ] = False,
    prefect: Annotated[bool, Parameter(negative="--no-prefect", help="run as a Prefect flow")] = True,
    runner: Annotated[
        str, Parameter(help="who carries out the shards: threads (this process), dask, dask:N, dask:tcp://HOST:PORT")
    ] = "threads",
    json: Annotated[bool, JSON] = False,
) -> None:
    """Audit a data set and a model: from images to ranked, evidenced findings.

    Run it again with the same --out to go on where it stopped; nothing is computed twice.
    """
    from pipeline.history import name_of

    at = place(out) if out else Path("audits") / name_of(config)
    if dry_run:
        from pipeline.config import Audit
        from pipeline.dry_run import print_plan

        return print_plan(Audit.from_yaml(config, list(set)), at, as_json=json)
    run(config, at, set, prefect, runner, json)


def run(
    config: Path, out: Place, overrides: tuple[str, ...], prefect: bool, runner: str = "threads", json: bool = False
) -> None:
    """Carry out an audit with progress in the terminal, then show it."""
    from pipeline.config import Audit
    from pipeline.progress import terminal

    audit = Audit.from_yaml(config, list(overrides))
    if runner != "threads" and not prefect:
        raise UserError(f"--runner {runner} is a way of running Prefect tasks: leave --no-prefect away.")
    from pipeline.chain import recognised

    if before := recognised(audit, out):
        print(f"Nothing has changed since {before.run()['finished']}: {out} is as it was.", file=sys.stderr)
        return show(str(out), json=json)
    with terminal() as progress:
        if prefect:
            from flows.run import run_flow

            run_flow(audit, out, runner)
        else:
            from pipeline.chain import run_audit

            run_audit(audit, out, progress)
    show(str(out), json=json)


@app.command
def show(audit: Annotated[str, Parameter(help=audits.FOLDER)], *, json: Annotated[bool, JSON] = False) -> None:
    """Show the top findings of an audit as a table (or every finding as JSON)."""
    from pipeline.store import AuditFolder

    folder = AuditFolder.open(audit)
    findings = folder.read("findings").to_pylist()
    if json:
        from pipeline.json_text import json_text

        return print(json_text(findings))
    from rich.console import Console

    from pipeline.report.assemble import counted
    from pipeline.report.terminal import print_answers, print_checks, print_findings

    console = Console()
    print_findings(console, folder.run(), findings)
    if folder.has("variants") and folder.has("answers"):
        answers = counted(folder.read("answers"))
        print_answers(console, folder.run(), folder.read("variants").to_pylist(), answers)
    if folder.has("checks"):
        print_checks(console, folder.read("checks").to_pylist())
    report = folder.path / "report.html"
    if report.is_file():
        console.print(f"Report: {plain(str(report))}", soft_wrap=True, highlight=False, markup=False)


@app.command
def export(
    audit: Annotated[str, Parameter(help=audits.FOLDER)],
    *,
    to: Annotated[str, Parameter(help="label-studio, coco, csv, jsonl, imagefolder or groups")],
    out: Annotated[str, Parameter(help="the file or folder to write, or its address")],
    set: Annotated[tuple[str, ...], Parameter(help="an option of the exporter: --set image_prefix=https://...")] = (),
) -> None:
    """Write an audit's findings for labelers and other tools; `cuescope import-verdicts` takes their answers back."""
    from pipeline.stages.export import export_audit
    from pipeline.store import AuditFolder

    for path in export_audit(AuditFolder.open(audit), to, place(out), list(set)):
        print(plain(str(path)))


@app.command
def import_verdicts(
    audit: Annotated[
        str, Parameter(help="the audit's folder that the labelers' files were exported from, or its address")
    ],
    file: Annotated[Path, Parameter(help="Label Studio's JSON export, or CSV or JSONL with a row an answer")],
) -> None:
    """Take in labelers' verdicts: they order this audit's findings, and hold for later audits of the data set."""
    from pipeline.import_verdicts import import_verdicts as take_in
    from pipeline.store import AuditFolder

    for line in take_in(AuditFolder.open(audit), file).lines():
        print(plain(line))  # names and annotators in it are anybody's


@app.command
def calibrate(audit: Annotated[str, Parameter(help=f"{audits.FOLDER}; with detections")]) -> None:
    """Fit the scale of an audit's detector by its classes, and print the option for its section 'detect'."""
    from pipeline.evidence.scales import fitted
    from pipeline.store import AuditFolder

    points = ", ".join(f"[{raw:g}, {score:g}]" for raw, score in fitted(AuditFolder.open(audit))[1:-1])
    print(f"calibration: [{points}]")


@app.command
def init(
    images: Annotated[
        Path, Parameter(help="a folder with one folder of images a class; a manifest, COCO file, shards")
    ],
    *,
    out: Annotated[Path, Parameter(help="the configuration to write")] = Path("audit.yaml"),
    force: Annotated[bool, Parameter(help="replace the file if it is there", negative="")] = False,
) -> None:
    """Write a commented configuration for a folder of images."""
    from pipeline.init import write_configuration

    write_configuration(images, out, force)
    print(f"Wrote {out}. Read it, then run: cuescope discover {out}")


@app.command
def doctor(
    config: Annotated[Path | None, Parameter(help="also check this configuration")] = None,
    *,
    models: Annotated[
        bool, Parameter(negative="", help="list published models instead: names, sizes, licences, which are here")
    ] = False,
    back_ends: Annotated[
        bool, Parameter(negative="", help="print the table of back ends (docs/back-ends.md) instead")
    ] = False,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Say what is installed, which models are there, what would be downloaded, and what is wrong."""
    from pipeline.doctor import diagnose, list_models

    if models:
        return list_models()
    if back_ends:
        from pipeline.back_ends import markdown

        return print(markdown(), end="")

    if not diagnose(config, as_json=json):
        raise SystemExit(2)


@planted.command
def render(
    out: Annotated[Path, Parameter(help="folder for the pictures")],
    *,
    number: Annotated[int, Parameter(help="how many")] = 100,
    size: Annotated[int, Parameter(help="side in pixels")] = 96,
    seed: int = 0,
) -> None:
    """Render pictures of the planted world, with their truth beside them."""
    from pipeline.planted.demo import render_pictures

    print(f"{render_pictures(out, number, size, seed)} pictures in {out}")


@planted.command
def train(
    what: Annotated[Literal["clip", "detector", "mllm"], Parameter(help="which tiny model")],
    *,
    out: Annotated[Path, Parameter(help="folder of the models")] = Path("data/models"),
    minutes: Annotated[float | None, Parameter(help="how long; default as the model's card says")] = None,
    seed: int = 0,
) -> None:
    """Train a tiny model on the rendered world (the detector needs the CLIP)."""
    from pipeline.planted.training import train_model

    train_model(what, out, minutes, seed)


@planted.command
def demo_data(
    out: Annotated[Path, Parameter(help="folder of the demo")] = Path("data/demo"),
    *,
    clip: Annotated[Path, Parameter(help="the tiny CLIP to fine-tune")] = Path("data/models/clip"),
    seed: int = 0,
) -> None:
    """Render the demo's pictures and fine-tune its biased model."""
    from pipeline.planted.demo import make_demo

    make_demo(out, clip, seed)


@planted.command
def score(
    audit: Annotated[Path, Parameter(help="an audit of planted pictures")],
    *,
    truth: Annotated[Path | None, Parameter(help="default: truth.yaml beside the audited pictures")] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Hold an audit against the planted truth: cue, rank and verdict of each class. Exit code 1 if it fails."""
    from pipeline.planted.score import print_score

    if not print_score(audit, truth, as_json=json):
        raise SystemExit(1)


@bench.command(name="planted")
def bench_planted(
    *,
    quick: Annotated[bool, Parameter(help="a few settings, in minutes", negative="")] = False,
    world: Annotated[
        Literal["both", "development", "held-out"], Parameter(help="thresholds come from one, figures from the other")
    ] = "both",
    out: Annotated[Path | None, Parameter(help="where the scoreboard is written; by default only printed")] = None,
    readme: Annotated[Path | None, Parameter(help="a file whose marked part becomes the table")] = None,
    models: Annotated[Path, Parameter(help="folder of the tiny models")] = Path("data/models"),
    work: Annotated[Path, Parameter(help="where models and pictures are built and kept")] = Path(".cuescope/bench"),
    jobs: Annotated[int, Parameter(help="processes, each of one thread")] = 2,
    every: Annotated[int, Parameter(help="only every n-th setting of a world")] = 1,
) -> None:
    """Audit models that lean on known cues, beside the published methods. Exit code 1 when a promise is missed."""
    from pipeline.bench.planted.command import bench_planted as run_bench

    if not run_bench(models.resolve(), work.resolve(), out, readme, world, quick, jobs, every):
        raise SystemExit(1)


@bench.command(name="memory")
def bench_memory(
    *,
    quick: Annotated[bool, Parameter(help="smaller sizes, in a few minutes", negative="")] = False,
    out: Annotated[Path | None, Parameter(help="a JSON file for the figures; by default only printed")] = None,
) -> None:
    """Audit 2,000 to 50,000 pictures and hold the peaks of memory against each other. Exit code 1 when it grows."""
    from pipeline.bench.memory.command import bench_memory as run_bench

    if not run_bench(quick, out):
        raise SystemExit(1)


@bench.command(name="all")
def bench_all(
    *,
    quick: Annotated[
        bool, Parameter(negative="--full", help="small sizes, in minutes; or full ones, in an hour")
    ] = True,
    only: Annotated[tuple[str, ...], Parameter(help="one benchmark by name; may be given again")] = (),
    models: Annotated[Path, Parameter(help="folder of the tiny models")] = Path("data/models"),
    work: Annotated[Path | None, Parameter(help="where pictures and models are made and kept")] = None,
    out: Annotated[
        Path | None, Parameter(help="a JSON file for the figures; those of benchmarks that aren't run stay in it")
    ] = None,
    document: Annotated[Path | None, Parameter(help="a file whose marked part becomes the table of them")] = None,
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="cuda: what can be measured on a GPU")] = "cpu",
) -> None:
    """Hold Cuescope's own time against what its models cost. Exit code 1 when a target is missed.

    With --full the figures go into data/scoreboard/speed.json and docs/performance.md of the clone that you stand in,
    unless others are named; those of a GPU into speed-gpu.json and a table of their own.
    """
    from pipeline.bench.speed.command import bench_speed as run_bench
    from pipeline.bench.speed.command import on_device

    for name in only:
        if name not in on_device(device):
            raise UserError(f"There is no benchmark '{name}' on {device}. {nearest(name, on_device(device))}")
    if not models.is_dir():
        raise UserError(f"There is no {models}: the benchmarks use the tiny models. Run them from a clone.")
    if not quick:
        name = "speed.json" if device == "cpu" else "speed-gpu.json"
        out, document = out or Path("data/scoreboard") / name, document or Path("docs/performance.md")
    if not run_bench(only, quick, models.resolve(), work.resolve() if work else None, out, document, device):
        raise SystemExit(1)


@bench.command(name="report")
def bench_report(
    *,
    findings: Annotated[int, Parameter(help="how many findings the report has")] = 1000,
    out: Annotated[Path | None, Parameter(help="a JSON file for the figures; by default only printed")] = None,
) -> None:
    """Open a large report in a real browser: its size, first paint and search. Exit code 1 when it is too slow."""
    from pipeline.bench.report.command import bench_report as run_bench

    if not run_bench(findings, out):
        raise SystemExit(1)


def main() -> None:
    """The console script."""
    from pipeline.quiet import quieten

    quieten()
    try:
        app()
        sys.stdout.flush()
    except BrokenPipeError:  # who read it, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write goes nowhere
        raise SystemExit(141) from None
    except UserError as error:
        print(f"cuescope: {plain(str(error))}", file=sys.stderr)  # names in it are anybody's
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(
            "cuescope: stopped. What was computed is kept; the same command goes on from there.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()

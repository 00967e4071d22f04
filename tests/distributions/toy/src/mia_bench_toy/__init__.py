"""A third party's distribution: defenses, attacks, an encoder, tracks and a command of its own."""

from pathlib import Path

import click

from mia_bench import hookimpl


@hookimpl
def mia_bench_register_defenses(register):
    register("toy-noise", "mia_bench_toy.defense:ToyNoise", summary="noise on the inputs")
    register("toy-failing", "mia_bench_toy.defense:ToyFailing", summary="raises in training")
    register("toy-deadly", "mia_bench_toy.defense:ToyDeadly", summary="kills its process")
    register("toy-hanging", "mia_bench_toy.defense:ToyHanging", summary="never ends")
    register("toy-diverging", "mia_bench_toy.defense:ToyDiverging", summary="its loss grows beyond")


@hookimpl
def mia_bench_register_attacks(register):
    register("toy-label-only", "mia_bench_toy.attack:ToyLabelOnly", summary="asks for labels")
    register("toy-prepared", "mia_bench_toy.attack:ToyPrepared", summary="has a prepare step")
    register("toy-hungry", "mia_bench_toy.attack:ToyHungry", summary="runs out of memory")
    register("toy-wrong", "mia_bench_toy.attack:ToyWrong", summary="does what it must not")
    register("toy-needs-critic", "mia_bench_toy.attack:ToyNeedsCritic", summary="is skipped")


@hookimpl
def mia_bench_register_encoders(register):
    register("toy-encoder", "mia_bench_toy.encoder:ToyEncoder", summary="encoder of small faces")


@hookimpl
def mia_bench_register_tracks(register):
    for name in ("toy", "toy-folder", "toy-lfw"):
        register(name, Path(__file__).with_name(f"{name}.toml"))


@hookimpl
def mia_bench_register_commands(cli):
    @cli.command("toy-hello")
    def hello():
        """Say hello."""
        click.echo("hello")

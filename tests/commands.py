"""A command that several tests run."""

TOY_RUN = (
    "run",
    "--track",
    "toy",
    "--defense",
    "none",
    "--attack",
    "ppa",
    "--device",
    "cpu",
    "--format",
    "json",
)

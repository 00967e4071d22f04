from mia_bench import hookimpl


@hookimpl
def mia_bench_register_defences(register):
    """The hook's name has a typo."""

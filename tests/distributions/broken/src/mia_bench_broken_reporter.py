from mia_bench import hookimpl


@hookimpl
def mia_bench_cell_finished(cell):
    raise RuntimeError("the logging service is down")

from mia_bench import hookimpl


@hookimpl
def mia_bench_register_defenses(register):
    register("fine-name", "some.module:Class", summary="registered before the nonsense")
    register("nonsense", 42)

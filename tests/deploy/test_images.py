"""Images and what goes into a cluster before the chart: pinned, small, without root; the serving image without training."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tastemaker.runtime import OF_IMAGE

ROOT = Path(__file__).parents[2]
IMAGES = ("serve", "train", "train-gpu")
TRAINING_ALONE = {
    "torchrec",
    "fbgemm-gpu",
    "fbgemm-gpu-cpu",
    "mlflow",
    "feast",
    "optuna",
    "implicit",
    "scikit-learn",
}


def dockerfile(image: str) -> str:
    return (ROOT / "k8s/images" / f"Dockerfile.{image}").read_text()


@pytest.fixture(scope="module")
def wheel_set() -> "dict[str, set[str]]":
    """Names of the packages of each image, by the script that people run."""
    script = ROOT / "k8s/images/wheel_set.py"
    told = subprocess.run(
        [sys.executable, str(script), *IMAGES], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    sets: dict[str, set[str]] = {}
    for line in told.splitlines():
        if found := re.match(r"([a-z-]+): \d+ packages, \d+ MB", line):
            sets[found[1]] = names = set()
        else:
            names.add(line.split(" MB  ")[1].split()[0])
    return sets


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_in_stages_from_a_base_with_a_digest_and_runs_without_root(image: str) -> None:
    text = dockerfile(image)
    [base] = re.findall(r"^ARG BASE=(.*)$", text, re.MULTILINE)
    assert re.fullmatch(r"\S+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert stages == ["${BASE}", "wheels", "${BASE}"]
    last = text.rpartition("FROM ")[2]
    assert "USER 10001:10001" in last
    assert 'ENTRYPOINT ["tastemaker"]' in last
    assert "pip install" not in last  # nothing that builds is left in it
    assert "constraints.txt" in text
    assert not re.search(r"ADD |curl |:latest", text)


@pytest.mark.parametrize("image", IMAGES)
def test_the_linter_of_dockerfiles_has_nothing_to_say(image: str) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    file = ROOT / "k8s/images" / f"Dockerfile.{image}"
    found = subprocess.run(
        [str(linter), "--no-color", str(file)], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_all_images_stand_on_one_base() -> None:
    assert len({re.search(r"^ARG BASE=(.*)$", dockerfile(image), re.MULTILINE)[1] for image in IMAGES}) == 1  # type: ignore[index]


def test_the_serving_image_has_nothing_of_training(wheel_set: "dict[str, set[str]]") -> None:
    assert not wheel_set["serve"] & TRAINING_ALONE
    assert {"ray", "torch", "faiss-cpu", "fastapi", "opentelemetry-sdk", "s3fs"} <= wheel_set["serve"]
    assert {"torchrec", "mlflow", "feast"} <= wheel_set["train"]
    assert "faiss-gpu-cu12" in wheel_set["train-gpu"]
    assert "faiss-cpu" not in wheel_set["train-gpu"]  # they own one module


def test_the_serving_image_takes_steering_headers_off_as_the_embedded_graph_does() -> None:
    told = dict(re.findall(r"(RAY_SERVE_\w+)=(\S+)", dockerfile("serve")))
    assert told == OF_IMAGE


def test_what_goes_before_the_chart_is_pinned() -> None:
    versions = dict(
        line.split("=", 1)
        for line in (ROOT / "k8s/versions.env").read_text().splitlines()
        if not line.startswith("#")
    )
    for name in ("KUBERAY_VERSION", "PROMETHEUS_VERSION"):
        assert re.fullmatch(r"\d+\.\d+\.\d+", versions[name]), name
    assert tuple(map(int, versions["KUBERAY_VERSION"].split("."))) >= (1, 6, 0)
    used = set(re.findall(r"\$([A-Z_]+)", (ROOT / "k8s/kind/up.sh").read_text()))
    assert used == set(versions)
    nodes = yaml.safe_load((ROOT / "k8s/kind/cluster.yaml").read_text())["nodes"]
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", node["image"]) for node in nodes)


@pytest.mark.parametrize("overlay", ["dev", "gpu"])
def test_an_overlay_names_files_that_are_there_and_changes_what_is_there(overlay: str) -> None:
    folder = ROOT / "k8s/overlays" / overlay
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    base = yaml.safe_load((ROOT / "k8s/base/kustomization.yaml").read_text())
    assert all((folder / name).exists() for name in kustomization["resources"])
    objects = [
        one
        for name in base["resources"]
        for one in yaml.safe_load_all((ROOT / "k8s/base" / name).read_text())
    ]
    names = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for patch in kustomization["patches"]:
        assert (patch["target"]["kind"], patch["target"]["name"]) in names
        changed = yaml.safe_load(patch["patch"])
        assert (changed["kind"], changed["metadata"]["name"]) in names
    [namespace] = [one for one in objects if one["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("script", ["up", "demo"])
def test_a_script_parses_and_its_commands_are_ours(script: str) -> None:
    file = ROOT / f"k8s/kind/{script}.sh"
    subprocess.run(["bash", "-n", str(file)], check=True)
    for path in re.findall(r"(?:k8s|helm)/[\w./-]+\.(?:yaml|env)", file.read_text()):
        assert (ROOT / path).exists(), path

"""Shows that each check can fail: plants one fault into a copy of the chart, and runs the check that has to see it.

By hand, where `make chart-test` is green: `python tests/deploy/chart/faults.py`; it writes docs/results/chart-checks.md.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "tastemaker"
PAGE = ROOT / "docs" / "results" / "chart-checks.md"
HEADING = "| Planted fault | File of the chart | Check | What it said |\n|---|---|---|---|\n"


@dataclass(frozen=True)
class Fault:
    """A text of one file of the chart in place of another, and the check that sees it."""

    told: str
    file: str
    before: str
    after: str
    check: str  # file::test of this folder
    only: str = "minimal"


FAULTS = [
    Fault("a template that does not close", "templates/config.yaml", "data:", "data: {{ if }}", "test_rendering::test_lint"),
    Fault("a Chart.yaml without version", "Chart.yaml", "version: 0.1.0\n", "", "test_rendering::test_lint"),
    Fault("one image is another", "values.yaml", "repository: tastemaker-serve", "repository: tastemaker", "test_rendering::test_inventory"),
    Fault("a random annotation", "templates/_helpers.tpl", "checksum/config: {{", "checksum/random: {{ randAlphaNum 9 }}\nchecksum/config: {{", "test_rendering::test_an_upgrade_without_a_change"),
    Fault("a changed Secret that rolls nothing", "templates/_helpers.tpl", 'printf "%s%s" (include "tastemaker.config" .) (.Values.secretsRevision | default "")', 'include "tastemaker.config" .', "test_rendering::test_a_changed_secret", "changed"),
    Fault("a password of before that is not taken", "files/valkey/prepare.sh", '-f "$secrets/$user.before"', '-f "$secrets/$user.old"', "test_valkey_users::test_a_password_is_changed", "changed"),
    Fault("an empty password", "files/valkey/prepare.sh", '[ -n "$password" ] ||', "true ||", "test_valkey_users::test_a_missing_password", "missing"),
    Fault("unknown keys are allowed", "values.schema.json", '"additionalProperties": false', '"additionalProperties": true', "test_refusals::test_refused", "servign"),
    Fault("a required name is not asked for", "templates/routes.yaml", 'required "ingress.host is needed where ingress.enabled is true" .Values', ".Values", "test_refusals::test_refused", "ingress"),
    Fault("any Kubernetes will do", "Chart.yaml", 'kubeVersion: ">=1.29.0-0"\n', "", "test_refusals::test_another_kubernetes", "another"),
    Fault("a field that Kubernetes does not know", "templates/workloads.yaml", "  strategy: {type: Recreate}", "  strategie: {type: Recreate}", "test_kubernetes::test_kubernetes_takes_it", "1.29"),
    Fault("an API that was removed", "templates/workloads.yaml", "apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n", "test_kubernetes::test_kubernetes_takes_it", "1.29"),
    Fault("a wrong field in a Ray pod", "templates/_ray.tpl", "livenessProbe:\n  httpGet: {path: {{ .path }}", "livenessProbe:\n  httpGet: {route: x, path: {{ .path }}", "test_kubernetes::test_kubernetes_takes_it", "1.29"),
    Fault("a field that KubeRay does not know", "templates/serving.yaml", "excludeHeadPodFromServeSvc: true", "excludeHeadFromServe: true", "test_kubernetes::test_custom_resources"),
    Fault("a wrong type in a RayJob", "templates/_jobs.tpl", "shutdownAfterJobFinishes: true", 'shutdownAfterJobFinishes: "yes"', "test_kubernetes::test_custom_resources"),
    Fault("a filter that the Gateway API does not know", "templates/routes.yaml", "type: RequestHeaderModifier", "type: RequestHeaderRemover", "test_kubernetes::test_custom_resources", "ha"),
    Fault("a newer chart that restarts the state", "templates/_valkey.tpl", 'include "tastemaker.lastingLabels"', 'include "tastemaker.labels"', "test_rendering::test_a_newer_chart", "newer"),
    Fault("Ray clusters that outlive their jobs", "templates/_jobs.tpl", "ttlSecondsAfterFinished: {{ $jobs.ttlSecondsAfterFinished }}", "ttlSecondsAfterFinished: 86400", "test_objects::test_a_finished_job"),
    Fault("capabilities are kept", "templates/_helpers.tpl", "  capabilities: {drop: [ALL]}\n", "", "test_kubernetes::test_checkov", "checkov"),
    Fault("a pod may run as root", "templates/_helpers.tpl", "  runAsNonRoot: true\n", "", "test_objects::test_pods_have"),
    Fault("the root file system can be written", "templates/_helpers.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "test_objects::test_pods_have"),
    Fault("requests above the limit", "values.yaml", "requests: {cpu: 200m, memory: 768Mi}", "requests: {cpu: 200m, memory: 768Gi}", "test_objects::test_pods_have"),
    Fault("a Deployment without readiness probe", "templates/workloads.yaml", "          readinessProbe:\n            httpGet: {path: /readyz, port: exporter}\n            periodSeconds: 5\n            timeoutSeconds: 5\n", "", "test_objects::test_pods_have"),
    Fault("an object without the version's label", "templates/_helpers.tpl", "app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}\n", "", "test_objects::test_objects_have"),
    Fault("a Service that selects no pod", "templates/workloads.yaml", 'spec:\n  selector:\n    {{- include "tastemaker.selector" $watch | nindent 4 }}', "spec:\n  selector: {app: administration}", "test_objects::test_references"),
    Fault("a Service to a port that no pod names", "templates/workloads.yaml", "targetPort: admin}", "targetPort: administration}", "test_objects::test_references"),
    Fault("a mounted ConfigMap that is not rendered", "templates/_tastemaker.tpl", "configMap: {name: {{ $full }}-config}", "configMap: {name: {{ $full }}-settings}", "test_objects::test_references"),
    Fault("a key that its Secret has not", "templates/_tastemaker.tpl", "key: keys.yaml, path: keys.yaml", "key: keys.yml, path: keys.yaml", "test_objects::test_references"),
    Fault("a claim that is not rendered", "templates/_tastemaker.tpl", 'printf "%s-home" $full', 'printf "%s-house" $full', "test_objects::test_references"),
    Fault("an account that is not rendered", "templates/_helpers.tpl", '.account | default "plain"', '.account | default "simple"', "test_objects::test_references"),
    Fault("a file that no mount brings", "templates/_tastemaker.tpl", "value: /run/secrets/tastemaker/state-password", "value: /run/secrets/other/state-password", "test_objects::test_references"),
    Fault("a host that is no Service", "templates/_tastemaker.tpl", "-mlflow:5000", "-registry:5000", "test_objects::test_references"),
    Fault("admin is let out by the Ingress", "templates/routes.yaml", "- path: /v1\n", "- path: /\n", "test_objects::test_references", "ha"),
    Fault("a policy that lets nothing into Valkey's port", "templates/_network.tpl", "6379", "6380", "test_objects::test_policies_let"),
    Fault("a policy for pods that never are", "templates/networkpolicies.yaml", '"retention"', '"retain"', "test_objects::test_policies_name", "policies"),
    Fault("a command that is none", "templates/workloads.yaml", '(list "cluster" "admin")', '(list "cluster" "administer")', "test_reality::test_commands_parse"),
    Fault("an option that a job's command has not", "values.yaml", "args: [batch, --k, ", "args: [batch, --kay, ", "test_reality::test_commands_parse"),
    Fault("an option that MLflow has not", "templates/mlflow.yaml", "--app-name", "--application", "test_reality::test_mlflow", "mlflow"),
    Fault("a setting that is none", "templates/_tastemaker.tpl", '"admin_host" "0.0.0.0"', '"admin_address" "0.0.0.0"', "test_reality::test_settings"),
    Fault("a variable that is no setting", "templates/_tastemaker.tpl", "TASTEMAKER_STATE__PASSWORD_FILE", "TASTEMAKER_STATE__PASSPHRASE_FILE", "test_reality::test_settings"),
    Fault("a port that nothing listens on", "templates/_tastemaker.tpl", '"exporter" "port" 8702', '"exporter" "port" 8703', "test_reality::test_ports"),
    Fault("a probe of no route", "templates/workloads.yaml", "httpGet: {path: /readyz, port: exporter}", "httpGet: {path: /ready, port: exporter}", "test_reality::test_probe"),
    Fault("Serve in another mode", "templates/_ray.tpl", '"RAY_SERVE_THROUGHPUT_OPTIMIZED" "1"', '"RAY_SERVE_THROUGHPUT_OPTIMIZED" "0"', "test_reality::test_ray_containers", "ray"),
    Fault("a variable that no program reads", "templates/_ray.tpl", '"RAY_LOG_TO_STDERR" "1"', '"RAY_LOG_TO_STDERR" "1"\n  "RAY_LOG_TO_STDOUTS" "1"', "test_reality::test_variables", "variables"),
    Fault("a CronJob whose manifest is not mounted", "templates/jobs.yaml", "/etc/tastemaker/jobs/{{", "/etc/tastemaker/job/{{", "test_reality::test_jobs"),
    Fault("a job of a recipe that is none", "values.yaml", "args: [tune, movielens]", "args: [tune, films]", "test_dry_runs::test_commands_run", "tune"),
    Fault("a backup whose dry run writes", "files/backup/begin.sh", "  exit 0\n", "", "test_dry_runs::test_the_backup", "backup"),
    Fault("an import path of no function", "templates/serving.yaml", "cluster_graph:graph", "cluster_graph:app", "test_reality::test_serve_config"),
    Fault("a script with an open `if`", "files/valkey/prepare.sh", "\nfi\n", "\n", "test_reality::test_scripts_are", "scripts"),
]  # fmt: skip


def plant(fault: Fault, folder: Path) -> None:
    """A copy of the chart with the fault in it.

    Raises:
        ValueError: The chart has no such text: the fault has to follow it.
    """
    shutil.copytree(CHART, folder)
    path = folder / fault.file
    text = path.read_text()
    if fault.before not in text:
        raise ValueError(f"{fault.told}: {fault.file} has no {fault.before!r}")
    path.write_text(text.replace(fault.before, fault.after))


def check(fault: Fault, folder: Path) -> tuple[int, str]:
    """pytest's exit code for a fault's check, against the chart in the folder, and the first thing it said."""
    file, test = fault.check.split("::")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        f"tests/deploy/chart/{file}.py",
    ]
    told = subprocess.run(
        [*command, "-k", f"{test} and {fault.only}"], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"CHART_FOLDER": str(folder)},
    )  # fmt: skip
    said = re.findall(r"^E +(\S.*)$", told.stdout, re.MULTILINE)
    return told.returncode, said[0] if said else told.stdout[-200:]


def main() -> int:
    """Plants all faults, or those whose text holds one of the given texts, one after the other."""
    chosen = [
        fault for fault in FAULTS if not sys.argv[1:] or any(text in fault.told for text in sys.argv[1:])
    ]
    missed = []
    for fault in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            plant(fault, Path(scratch) / "tastemaker")
            code, said = check(fault, Path(scratch) / "tastemaker")
        said = said.replace(scratch, "…").replace(tempfile.gettempdir(), "…")
        said = " ".join(said.replace("|", "/").split())[:150]
        print(f"{'seen' if code == 1 else 'MISSED'}: {fault.told}: {said}", flush=True)  # noqa: T201
        write_row(fault, said if code == 1 else None)
        missed += [] if code == 1 else [fault.told]
    return 1 if missed else 0


def write_row(fault: Fault, said: str | None) -> None:
    """Puts what a check said into the page's table, or takes the fault out of it."""
    head, _, table = PAGE.read_text().partition(HEADING)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines() if line}
    rows[fault.told] = f"| {fault.told} | `{fault.file}` | `{fault.check}` | {said} |" if said else ""
    kept = [rows[known.told] for known in FAULTS if rows.get(known.told)]
    PAGE.write_text(head + HEADING + "\n".join(kept) + "\n")


if __name__ == "__main__":
    sys.exit(main())

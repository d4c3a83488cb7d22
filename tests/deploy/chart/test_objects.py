"""What the chart renders is whole: hardened pods, references that lead somewhere, policies that let through what is done."""

from chart import hardening, policies
from chart.objects import Object, embedded, pods
from chart.references import References
from chart.rendering import Case, ci_cases, objects_of, random_cases, values_of


def test_pods_have_resources_probes_and_security(objects: tuple[Object, ...]) -> None:
    assert [problem for pod in pods(objects) for problem in hardening.problems(pod)] == []


def test_objects_have_the_standard_labels(objects: tuple[Object, ...]) -> None:
    assert [problem for item in objects for problem in hardening.label_problems(item)] == []


def test_references_lead_somewhere(case: Case) -> None:
    assert list(References(objects_of(case), values_of(case)).problems()) == []


def test_a_finished_job_gives_its_machines_back(objects: tuple[Object, ...]) -> None:
    """`ttlSecondsAfterFinished` of a RayJob is how long the pods of its cluster stay, not the RayJob."""
    jobs = [item for item in embedded(objects) if item["kind"] == "RayJob"]
    for job in jobs:
        assert job["spec"]["shutdownAfterJobFinishes"] is True
        assert job["spec"]["ttlSecondsAfterFinished"] <= 300, job["metadata"]["name"]


def test_of_a_jobs_pods_those_with_gpus_alone_have_their_runtime() -> None:
    (gpu,) = (case for case in ci_cases() if case.name == "gpu")
    found = {True: 0, False: 0}
    for pod in pods(objects_of(gpu)):
        if pod.owner["kind"] in ("RayJob", "CronJob"):
            limits = [container["resources"].get("limits", {}) for container in pod.containers()]
            computes = any("nvidia.com/gpu" in limit for limit in limits)
            assert pod.spec.get("runtimeClassName") == ("nvidia" if computes else None), pod.where
            found[computes] += 1
    assert all(found.values())


def test_the_starter_of_jobs_may_delete_those_that_it_is_told_not_to_keep() -> None:
    for case in ci_cases():
        roles = [o for o in objects_of(case) if o["kind"] == "Role"]
        assert [role["rules"] for role in roles] == [
            [
                {
                    "apiGroups": ["ray.io"],
                    "resources": ["rayjobs"],
                    "verbs": ["create", "get", "list", "delete"],
                }
            ]
        ]


def test_policies_let_through_what_pods_are_told_to_reach(objects: tuple[Object, ...]) -> None:
    assert list(policies.problems(objects)) == []


def test_policies_name_pods_that_exist() -> None:
    cases = [*ci_cases(), *random_cases()]
    known = {component for case in cases for component in policies.components(objects_of(case))}
    named = {pair for case in cases for pair in policies.named(objects_of(case))}
    assert {pair for pair in named if pair[1] not in known} == set()
    assert any(policies.arrows(objects_of(cases[0]))), "no URL was found: the check above looks at nothing"


def test_quantities() -> None:
    assert hardening.amount("250m") * 4 == hardening.amount(1)
    assert hardening.amount("1Gi") == 1024 * hardening.amount("1Mi") == 1_073_741_824
    assert hardening.amount("1.5") == hardening.amount("1500m")

"""launchers/kubernetes.yaml: an indexed job whose pods find each other by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launchers.shell import ROOT, option, shown, start

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def manifests() -> dict[str, Manifest]:
    documents = yaml.safe_load_all((ROOT / "launchers" / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def container(manifests: dict[str, Manifest]) -> Manifest:
    (container,) = manifests["Job"]["spec"]["template"]["spec"]["containers"]
    return container


def environment(container: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_the_number_of_pods_is_the_same_in_all_places(manifests: dict[str, Manifest], container: Manifest) -> None:
    job = manifests["Job"]["spec"]
    assert job["completions"] == job["parallelism"] == int(environment(container)["NODES"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(environment(container)["RANKS_PER_NODE"])


def test_the_service_gives_the_pods_the_names_that_the_hostfile_holds(
    manifests: dict[str, Manifest], container: Manifest, programs: Path
) -> None:
    service, job = manifests["Service"], manifests["Job"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    words = pod(container, programs, 0)
    # The name of an indexed job's pod is JOB-INDEX, and that of its address POD.SERVICE.
    name = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert option(words, "--master_addr") == name


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_starts_the_ranks_of_its_index(container: Manifest, programs: Path, index: int) -> None:
    words = pod(container, programs, index)
    assert option(words, "--node_rank") == str(index)
    assert Path(option(words, "--hostfile")).read_text() == "unigrf-0.unigrf slots=8\nunigrf-1.unigrf slots=8\n"
    config = words[words.index("--config") + 1]
    assert (ROOT / config).is_file()


def test_shared_memory_is_not_the_64_mebibytes_of_a_container(manifests: dict[str, Manifest]) -> None:
    pod = manifests["Job"]["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "shared-memory"]
    assert volume["emptyDir"]["medium"] == "Memory"
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["shared-memory"] == "/dev/shm"


def pod(container: Manifest, programs: Path, index: int) -> list[str]:
    """The command that the pod's script shows in a dry run."""
    hosts = programs.parent / "hosts"
    command = [*container["command"], *(text.replace("/tmp/hosts", str(hosts)) for text in container["args"])]
    settings = environment(container)
    done = start(
        command, programs=programs, JOB_COMPLETION_INDEX=str(index), GLOO_SOCKET_IFNAME="eth0", **settings
    )
    (words,) = shown(done)
    return words

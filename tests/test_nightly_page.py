"""The files of docs/nightly.md: their tools' schemas accept them, and their scripts pass every exit code on."""

import fcntl
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from croniter import croniter

from tests.helpers.house import HOUSE

NIGHTLY = (HOUSE / "docs" / "nightly.md").read_text()
OPERATIONS = (HOUSE / "docs" / "operations.md").read_text()
KUBERNETES = "1.34"
RAYJOB = {
    "entrypoint", "backoffLimit", "activeDeadlineSeconds", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "rayClusterSpec", "clusterSelector", "submitterPodTemplate", "runtimeEnvYAML", "suspend",
}  # fmt: skip
RAY_CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"rayStartParams", "template", "groupName", "replicas", "minReplicas", "maxReplicas"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", NIGHTLY, re.DOTALL | re.MULTILINE)


def block(language: str, holds: str) -> str:
    """The one block of a language that holds a text."""
    (found,) = [text for text in blocks(language) if holds in text]
    return found


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(block("yaml", "kind: CronJob")))


def workflow() -> str:
    return block("yaml", "runs-on:")


def stand_in(folder: Path, name: str, script: str) -> None:
    """A command that notes its arguments in FOLDER/calls, one line for each call, then does as told."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> "{folder}/calls"\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def ending_with(folder: Path, *codes: int) -> str:
    """The script of a stand-in that ends with one code after another."""
    (folder / "codes").write_text("".join(f"{code}\n" for code in codes))
    return f'code=$(head -n 1 "{folder}/codes"); sed -i 1d "{folder}/codes"; exit "$code"'


def run(script: str, folder: Path, *shell: str) -> int:
    """Run a script that lies in a folder, with the stand-ins of FOLDER/bin; its exit code."""
    (folder / "script.sh").write_text(script)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "RAY_DASHBOARD": "http://head:8265"}
    command = [*(shell or ("sh",)), str(folder / "script.sh")]
    return subprocess.run(command, cwd=folder, env=environment, check=False, timeout=60, capture_output=True).returncode


def calls(folder: Path, command: str = "") -> list[str]:
    return [line for line in (folder / "bin" / "calls").read_text().splitlines() if line.startswith(command)]


# Schemas


def check_workflow(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=120)


def test_github_accepts_the_workflow(tmp_path: Path) -> None:
    """By the schema that check-jsonschema carries; it refuses a mistake."""
    found = check_workflow(tmp_path / "nightly.yaml", workflow())
    assert found.returncode == 0, found.stdout
    wrong = check_workflow(tmp_path / "wrong.yaml", workflow().replace("timeout-minutes", "timeout-minuts"))
    assert wrong.returncode == 1


def test_kubernetes_accepts_the_manifests() -> None:
    """By its own schemas, unknown keys refused."""
    kinds = [manifest["kind"] for manifest in manifests()]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "CronJob"]
    for manifest in manifests():
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("podFailurePolicy", "podFailPolicy"), ("backoffLimit: 3", "backoffLimit: three"), ("roleRef", "roleref")],
)
def test_a_mistake_in_a_manifest_is_found(right: str, wrong: str) -> None:
    """What the test before relies on."""
    text = block("yaml", "kind: CronJob").replace(right, wrong)
    with pytest.raises(kubernetes_validate.ValidationError):
        for manifest in yaml.safe_load_all(text):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_schedules_are_those_of_cron() -> None:
    """In the crontab, the workflow and the CronJob; a crontab has assignments and lines of five fields."""
    (crontab,) = blocks("crontab")
    lines = [line for line in crontab.splitlines() if not re.fullmatch(r"[A-Z_]+=\S+", line)]
    fields = [line.split(maxsplit=5) for line in lines]
    schedules = [" ".join(parts[:5]) for parts in fields]
    assert len(schedules) == 2
    on = yaml.safe_load(workflow())[True]  # YAML reads `on` so; GitHub does not
    schedules += [on["schedule"][0]["cron"], manifests()[-1]["spec"]["schedule"]]
    assert all(map(croniter.is_valid, schedules))
    assert not croniter.is_valid("17 25 * * *")
    for *_, command in fields:
        assert "%" not in command  # a line break to cron
        subprocess.run(["sh", "-n", "-c", command], check=True)


# The RayJob


def ray_job(tmp_path: Path) -> dict[str, Any]:
    """The RayJob of docs/operations.md after the command of docs/nightly.md."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    shown = next(text for text in re.findall(r"```yaml\n(.*?)```", OPERATIONS, re.DOTALL) if "RayJob" in text)
    (tmp_path / "operations_rayjob.yaml").write_text(shown.partition("---\n")[2])
    stand_in(tmp_path / "bin", "kubectl", "exit 0")
    assert run(block("sh", "operations_rayjob.yaml"), tmp_path) == 0
    job: dict[str, Any] = yaml.safe_load((tmp_path / "rayjob.yaml").read_text())
    return job


def test_the_ray_job_computes_the_suite(tmp_path: Path) -> None:
    """From the files of the ConfigMap that the page makes; the pods are checked by the schema of Kubernetes."""
    job = ray_job(tmp_path)
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("ray.io/v1", "RayJob", "smoothcert")
    assert spec.keys() <= RAYJOB
    assert spec["rayClusterSpec"].keys() <= RAY_CLUSTER
    assert spec["entrypoint"] == "python /home/ray/smoothcert/pipeline/certify_all.py /night/suite.yaml"
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for group in groups:
        assert group.keys() <= GROUP
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    head = groups[0]["template"]["spec"]
    assert head["volumes"] == [{"name": "job", "configMap": {"name": "smoothcert-night"}}]
    assert head["containers"][0]["volumeMounts"] == [{"name": "job", "mountPath": "/night"}]


def test_what_the_manifests_name_is_made(tmp_path: Path) -> None:
    """The ConfigMap has every file that is read below /night, and the secret its key."""
    ray_job(tmp_path)
    config_map, secret, apply = calls(tmp_path, "kubectl")
    cron = manifests()[-1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = cron["containers"]
    assert config_map.startswith(f"kubectl create configmap {cron['volumes'][0]['configMap']['name']} ")
    files = set(re.findall(r"--from-file=(\S+)", config_map))
    read = re.findall(r"/night/([\w.]+)", " ".join([*container["command"], block("sh", "kubectl delete")]))
    assert {"suite.yaml", "rayjob.yaml", "judge.sh"} == set(read) <= files
    wanted = container["env"][0]["valueFrom"]["secretKeyRef"]
    assert secret.startswith(f"kubectl create secret generic {wanted['name']} --from-literal={wanted['key']}=")
    assert apply == "kubectl apply --filename nightly.yaml"


def test_the_role_allows_what_the_script_does() -> None:
    """Each verb of kubectl, on RayJobs, and no other."""
    role = next(manifest for manifest in manifests() if manifest["kind"] == "Role")
    (rule,) = role["rules"]
    assert set(rule["verbs"]) == set(re.findall(r"kubectl (\w+)", block("sh", "kubectl delete")))
    assert (rule["apiGroups"], rule["resources"]) == (["ray.io"], ["rayjobs"])
    names = {manifest["metadata"]["name"] for manifest in manifests()}
    assert names == {"smoothcert-night"}


# Exit codes


def test_a_pod_is_repeated_for_code_3_alone() -> None:
    """A gate that tripped and a wrong request fail the job at once."""
    job = manifests()[-1]["spec"]["jobTemplate"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert rule["onExitCodes"]["values"] == [1, 2]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # else the policy is not allowed
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]


@pytest.mark.parametrize(
    ("codes", "ends_with"),
    [([0], 0), ([1], 1), ([2], 2), ([130], 130), ([3, 0], 0), ([3, 1], 1), ([3, 3, 3, 0], 0), ([3, 3, 3, 3], 3)],
)
def test_night_sh_tries_again_what_did_not_finish(codes: list[int], ends_with: int, tmp_path: Path) -> None:
    """And nothing else."""
    stand_in(tmp_path / ".venv" / "bin", "smoothcert", ending_with(tmp_path, *codes))
    stand_in(tmp_path / "bin", "sleep", "exit 0")
    assert run(block("sh", "for pause"), tmp_path) == ends_with
    done = (tmp_path / ".venv" / "bin" / "calls").read_text().splitlines()
    assert done == ["smoothcert nightly suite.yaml"] * len(codes)
    assert calls(tmp_path) == [f"sleep {pause}" for pause in (0, 600, 1200, 1800)[: len(codes)]]


def crontab_command(folder: Path) -> str:
    """The command of the first line of the crontab, in another folder."""
    (crontab,) = blocks("crontab")
    (line,) = [line for line in crontab.splitlines() if "night.sh" in line]
    return line.split(maxsplit=5)[5].replace("/srv/nightly", str(folder))


@pytest.mark.parametrize(("code", "printed"), [(0, ""), (1, "GATE TRIPPED\n"), (3, "GATE TRIPPED\n")])
def test_cron_prints_the_log_of_a_bad_night_alone(code: int, printed: str, tmp_path: Path) -> None:
    """What is printed is mailed."""
    stand_in(tmp_path, "night.sh", f"echo GATE TRIPPED; exit {code}")
    done = subprocess.run(["sh", "-c", crontab_command(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (printed, "")
    assert (tmp_path / "last.log").read_text() == "GATE TRIPPED\n"


def test_a_second_night_does_not_begin(tmp_path: Path) -> None:
    """It is silent, and the log is that of the first."""
    stand_in(tmp_path, "night.sh", "exit 1")
    (tmp_path / "last.log").write_text("at work\n")
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["sh", "-c", crontab_command(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "calls").exists()
    assert (tmp_path / "last.log").read_text() == "at work\n"


@pytest.mark.parametrize(("code", "ends_with"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_the_workflow_warns_of_a_night_that_did_not_finish(code: int, ends_with: int, tmp_path: Path) -> None:
    """Run as GitHub runs a step: bash -e."""
    steps = yaml.safe_load(workflow())["jobs"]["night"]["steps"]
    (script,) = [step["run"] for step in steps if step.get("name") == "night"]
    stand_in(tmp_path, "night.sh", f"exit {code}")
    assert run(script, tmp_path, "bash", "-e") == ends_with


@pytest.mark.parametrize("submitted", [0, 1])
@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_submitted_night_ends_with_the_code_of_nightly(submitted: int, code: int, tmp_path: Path) -> None:
    """Whatever became of the submission: nightly says what is missing."""
    venv = tmp_path / ".venv" / "bin"
    stand_in(venv, "ray", f"exit {submitted}")
    stand_in(venv, "smoothcert", f'echo "$RAY_ADDRESS" >> "{tmp_path}/address"; exit {code}')
    assert run(block("sh", "ray job submit"), tmp_path) == code
    first, second = (venv / "calls").read_text().splitlines()
    assert first == (
        "ray job submit --address http://head:8265 --working-dir . -- python pipeline/certify_all.py suite.yaml"
    )
    assert second == "smoothcert nightly suite.yaml"
    assert (tmp_path / "address").read_text() == "local\n"


@pytest.mark.parametrize("state", ["Complete", "Failed"])
@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_judge_sh_ends_with_the_code_of_nightly(state: str, code: int, tmp_path: Path) -> None:
    """After the RayJob has ended, well or not; a kubectl that fails while it waits is asked again."""
    states = tmp_path / "states"
    states.write_text(f"\nInitializing\nRunning\n{state}\n")
    stand_in(tmp_path / "bin", "kubectl", f'[ "$1" = get ] || exit 0; head -n 1 "{states}"; sed -i 1d "{states}"')
    stand_in(tmp_path / "bin", "sleep", "exit 0")
    stand_in(tmp_path / "bin", "smoothcert", f"exit {code}")
    assert run(block("sh", "kubectl delete"), tmp_path) == code
    done = calls(tmp_path)
    assert done[:2] == [
        "kubectl delete rayjob smoothcert --ignore-not-found",
        "kubectl create --filename /night/rayjob.yaml",
    ]
    assert len(calls(tmp_path, "sleep 30")) == 3
    assert done[-1] == "smoothcert nightly /night/suite.yaml"


@pytest.mark.parametrize("failing", ["delete", "create"])
def test_a_ray_job_that_cannot_be_started_is_no_tripped_gate(failing: str, tmp_path: Path) -> None:
    """It is tried again."""
    stand_in(tmp_path / "bin", "kubectl", f'[ "$1" != {failing} ]')
    stand_in(tmp_path / "bin", "smoothcert", "exit 0")
    assert run(block("sh", "kubectl delete"), tmp_path) == 3
    assert calls(tmp_path, "smoothcert") == []


def test_no_secret_stands_on_the_page() -> None:
    """Webhooks have a placeholder, and the URL is no argument of smoothcert in any script."""
    assert all(url.endswith("REPLACE") for url in re.findall(r"https://hooks\S+", NIGHTLY))
    assert not [text for text in blocks(r"\w+") if "--notify" in text]

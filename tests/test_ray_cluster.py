"""ray_cluster.yaml and docs/operations.md, as far as they can be tried without AWS: nothing here leaves the machine."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import boto3
import botocore.client
import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from moto import mock_aws
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts as ray_commands

from tests.helpers import jobs
from tests.helpers.house import HOUSE

OPERATIONS = (HOUSE / "docs" / "operations.md").read_text()
CONSTRAINTS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (HOUSE / "constraints.txt").read_text(), re.MULTILINE))
RUN_INSTANCES = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape

# What each call of workers/storage/s3_store.py must be allowed; HeadBucket is a matter of ListBucket.
S3_CALLS = {
    "head_object": {"s3:GetObject"},
    "get_object": {"s3:GetObject"},
    "download_file": {"s3:GetObject"},
    "list_objects_v2": {"s3:ListBucket"},
    "get_paginator": {"s3:ListBucket"},
    "put_object": {"s3:PutObject"},
    "copy_object": {"s3:GetObject", "s3:PutObject"},
    "delete_object": {"s3:DeleteObject"},
}
REPAIR_PRUNE_OR_FINETUNE = {"copy_object", "delete_object"}


@pytest.fixture
def cluster(monkeypatch):
    """The cluster file as Ray prepares it: where it runs, relative paths begin."""
    monkeypatch.chdir(HOUSE)
    return prepare_config(yaml.safe_load(Path("ray_cluster.yaml").read_text()))


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """AWS played by moto, with the two instance profiles; gives the calls that Ray makes."""
    calls = set()
    original = botocore.client.BaseClient._make_api_call

    def recorded(client, operation, parameters):
        calls.add(f"{client.meta.service_model.service_name}:{operation}")
        return original(client, operation, parameters)

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray leaves its key there
    with mock_aws():
        for name in ("smoothcert-head", "smoothcert-worker"):
            boto3.client("iam", region_name="us-west-2").create_instance_profile(InstanceProfileName=name)
        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
        yield calls


def node_configs(cluster):
    return {name: kind["node_config"] for name, kind in cluster["available_node_types"].items()}


def as_launched(node_config):
    """The parameters of RunInstances that Ray makes of a node_config."""
    subnets = node_config.pop("SubnetIds", ["subnet-0"])
    return node_config | {"MinCount": 1, "MaxCount": 1, "SubnetId": subnets[0]}


def wrong_values(shape, value, path=""):
    """Where a value is none of those that botocore's model lists; its validator looks at types alone."""
    if shape.type_name == "structure":
        return [
            wrong for key, part in value.items() for wrong in wrong_values(shape.members[key], part, f"{path}.{key}")
        ]
    if shape.type_name == "list":
        return [wrong for part in value for wrong in wrong_values(shape.member, part, path)]
    allowed = getattr(shape, "enum", None)
    return [f"{path}: {value}"] if allowed and value not in allowed else []


def policies():
    """The actions of each IAM policy of docs/operations.md, by the name that stands last before its block."""
    before, *blocks = OPERATIONS.split("```json\n")
    found = {}
    for block in blocks:
        name = re.findall(r"`(smoothcert-[\w-]+)`", before)[-1]
        policy, _, before = block.partition("```")
        found[name] = actions_of(json.loads(policy))
    return found


def actions_of(policy):
    actions = [statement["Action"] for statement in policy["Statement"]]
    return {name for action in actions for name in ([action] if isinstance(action, str) else action)}


def test_ray_accepts_the_cluster_file(cluster):
    """Ray's own validator, after its own preparation, finds nothing."""
    validate_config(cluster)


def test_a_mistake_in_the_cluster_file_is_found(cluster):
    """The validator is one: an unknown key is refused."""
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(cluster | {"idle_timeout": 5})


@pytest.mark.parametrize("node", ["head", "gpu"])
def test_ec2_knows_every_key_and_value_of_a_node_config(cluster, node):
    """Against botocore's model of RunInstances: keys, types, and values where the model lists them."""
    parameters = as_launched(node_configs(cluster)[node])
    assert not ParamValidator().validate(parameters, RUN_INSTANCES).has_errors()
    assert not wrong_values(RUN_INSTANCES, parameters)


@pytest.mark.parametrize(
    "change",
    [
        {"InstanceTypo": "g6.xlarge"},  # no such key
        {"IamInstanceProfile": "smoothcert-worker"},  # not a mapping
        {"InstanceType": "g6.xxlarge"},  # no such machine
        {"MetadataOptions": {"HttpTokens": "require"}},  # no such value, deeper down
    ],
)
def test_a_mistake_in_a_node_config_is_found(cluster, change):
    """What the test before relies on."""
    parameters = as_launched(node_configs(cluster)["gpu"]) | change
    mistaken = ParamValidator().validate(parameters, RUN_INSTANCES).has_errors()
    assert mistaken or wrong_values(RUN_INSTANCES, parameters)


def test_machines_cost_nothing_when_idle_and_are_hard_to_misuse(cluster):
    """GPU machines: spot, none at first, few at most; IMDSv2 alone; no keys; the dashboard on the head alone."""
    gpu = cluster["available_node_types"]["gpu"]
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= cluster["max_workers"]
    assert gpu["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert gpu["resources"]["GPU"] == 1
    assert cluster["idle_timeout_minutes"] <= 10
    assert not cluster["provider"]["cache_stopped_nodes"]
    profiles = {name: config["IamInstanceProfile"]["Name"] for name, config in node_configs(cluster).items()}
    assert profiles == {"head": "smoothcert-head", "gpu": "smoothcert-worker"}
    for config in node_configs(cluster).values():
        assert config["MetadataOptions"]["HttpTokens"] == "required"
    assert "AWS_SECRET" not in (HOUSE / "ray_cluster.yaml").read_text()


def test_the_launcher_needs_no_more_than_its_policies_allow(cluster, aws):
    """Ray's way from the file to running and ended machines, played through; each call is in the documented policy."""
    cluster = AWSNodeProvider.bootstrap_config(cluster)
    provider = AWSNodeProvider(cluster["provider"], cluster["cluster_name"])
    of_the_launcher = policies()["smoothcert-launcher"]
    assert aws <= of_the_launcher
    aws.clear()
    for name, config in node_configs(cluster).items():
        tags = {"ray-node-type": name, "ray-launch-config": "of the file", "ray-node-status": "uninitialized"}
        provider.create_node(config, tags, 1)
    nodes = provider.non_terminated_nodes({})
    provider.set_node_tags(nodes[0], {"ray-node-status": "up-to-date"})
    provider.terminate_nodes(nodes)
    assert len(nodes) == 2
    assert aws <= of_the_launcher
    assert aws <= policies()["smoothcert-head"]  # the autoscaler runs there
    assert "iam:PassRole" in of_the_launcher & policies()["smoothcert-head"]  # EC2 asks for it; moto does not


def test_the_policy_of_the_bucket_allows_what_the_store_calls():
    """Each call of workers/storage/s3_store.py is known here; the policies allow these, and nothing else of S3."""
    source = (HOUSE / "workers" / "storage" / "s3_store.py").read_text()
    assert set(re.findall(r"_client\.(\w+)\(", source)) == S3_CALLS.keys()
    needed = {
        action for call, actions in S3_CALLS.items() if call not in REPAIR_PRUNE_OR_FINETUNE for action in actions
    }
    assert policies()["smoothcert-bucket"] == needed
    assert (
        policies()["smoothcert-repair"]
        == {action for call in REPAIR_PRUNE_OR_FINETUNE for action in S3_CALLS[call]} - needed
    )


def test_what_is_mounted_exists(cluster):
    """Every source of file_mounts is in the repository, and the mounted job is a job."""
    assert {"~/src", "~/pipeline", "~/workers", "~/manifests", "~/constraints.txt", "~/job.yaml"} == cluster[
        "file_mounts"
    ].keys()
    for source in cluster["file_mounts"].values():
        assert Path(source).exists(), source


def test_the_machines_install_what_the_code_needs(cluster):
    """The packages of smoothcert[certify] under the versions of constraints.txt; Ray's version is the same in both."""
    command = next(command for command in cluster["setup_commands"] if "pip install" in command)
    words = shlex.split(command)
    named = words[words.index("~/constraints.txt") + 1 :]
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["certify"]]
    assert {re.split("[<>=]", name)[0] for name in named} == {re.split("[<>=]", name)[0] for name in wanted}
    assert [name for name in named if "==" in name] == [f"ray[default]=={CONSTRAINTS['ray']}"]


@pytest.mark.parametrize("key", ["setup_commands", "head_start_ray_commands", "worker_start_ray_commands"])
def test_the_commands_are_bash(cluster, key):
    """bash can read each command, and `ray start` knows its options."""
    for command in cluster[key]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        if "ray start" in command:
            arguments = shlex.split(command.partition("ray start")[2].replace("$RAY_HEAD_IP", "10.0.0.1"))
            options = ray_commands.start.make_context("ray start", arguments).params
            assert options["head"] == (key == "head_start_ray_commands")
            assert options["dashboard_host"] == "127.0.0.1"
    if key == "head_start_ray_commands":
        silent = options["system_config"]
        assert silent["health_check_period_ms"] * silent["health_check_failure_threshold"] <= 5000


@pytest.fixture
def home(cluster, tmp_path):
    """The head's home after `ray submit`; each package notes from where it was imported, and by which process."""
    home = tmp_path / "home"
    home.mkdir()
    for target, source in cluster["file_mounts"].items():
        if Path(source).is_dir():
            shutil.copytree(source, home / target.removeprefix("~/"), symlinks=True)  # as rsync does
        else:
            shutil.copy(source, home / target.removeprefix("~/"))
    shutil.copy("pipeline/certify_all.py", home)
    for package in ("pipeline", "workers", "manifests"):
        with (home / package / "__init__.py").open("a") as file:
            file.write(
                f"\nopen({str(home / 'imports')!r}, 'a').write(f'{{__import__(\"os\").getpid()}} {{__file__}}\\n')\n"
            )
    return home


def submit(home, *arguments):
    """The script as `ray submit` runs it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HOME": str(home)}
    return subprocess.run(
        [sys.executable, "certify_all.py", *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def importers(home):
    """Processes that imported the house, each with the files of its packages."""
    processes = {}
    for line in (home / "imports").read_text().splitlines():
        process, _, file = line.partition(" ")
        processes.setdefault(process, set()).add(Path(file).relative_to(home).as_posix())
    return processes


def test_submit_runs_the_mounted_job(home, tmp_path):
    """
    Without an argument the mounted job.yaml is certified, by the code that is mounted: by the driver, the actors, and
    no other copy of it, although this environment has one installed.
    """
    jobs.write_shards(tmp_path, shards=2)
    paths = {"images": {"shards": str(tmp_path / "tars")}, "output": str(tmp_path / "runs")}
    shutil.move(jobs.write_job(tmp_path, **paths), home / "job.yaml")
    shutil.copy(tmp_path / "weights.pt", home)
    result = submit(home)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("runs/*/votes/*.parquet"))) == 2
    packages = {f"src/smoothcert/{folder}/__init__.py" for folder in ("manifests", "workers", "pipeline")}
    assert list(importers(home).values()).count(packages) >= 2  # the driver, an actor


def test_submit_takes_a_job_that_is_named(home):
    """With an argument the job is that one, and its mistakes are named."""
    (home / "mine.yaml").write_text("name: mine")
    result = submit(home, "mine.yaml", "--limit", "5")
    assert result.returncode == 2
    assert result.stderr.startswith("error: mine.yaml: ")


def test_without_any_job_one_line_says_how_to_name_one(home):
    """No argument and no job.yaml: exit code 2."""
    (home / "job.yaml").unlink()
    result = submit(home, "--limit", "5")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: no job named, and no job.yaml in {home}; name one: certify_all.py JOB.yaml\n"


def test_help_needs_no_job(home):
    """--help answers, and leaves the mounted job alone."""
    result = submit(home, "--help")
    assert result.returncode == 0
    assert "job.yaml" in result.stdout


def test_the_rayjob_runs_this_ray(cluster):
    """The KubeRay manifest of the guide parses; its image, its Ray and its GPUs are those of this house."""
    block = next(text for text in re.findall(r"```yaml\n(.*?)```", OPERATIONS, re.DOTALL) if "RayJob" in text)
    config_map, job = yaml.safe_load_all(block)
    spec = job["spec"]["rayClusterSpec"]
    (workers,) = spec["workerGroupSpecs"]
    assert (config_map["kind"], job["kind"], job["apiVersion"]) == ("ConfigMap", "RayJob", "ray.io/v1")
    assert spec["rayVersion"] == CONSTRAINTS["ray"]
    assert f"rayproject/ray:{CONSTRAINTS['ray']}-py311" in OPERATIONS
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert yaml.safe_load(config_map["data"]["job.yaml"])["execution"]["gpus_per_actor"] == 1


def test_no_key_is_written_in_the_guide():
    """Credentials come from instance profiles: nothing that looks like a key, and no way to write one down."""
    assert not re.search(r"AKIA[0-9A-Z]{12}|AWS_SECRET_ACCESS_KEY=|aws_secret_access_key", OPERATIONS)


def test_job_submit_sends_the_whole_package(tmp_path):
    """`ray job submit --working-dir .` packs links as what they lead to; what it sends runs by itself."""
    packed, sent = tmp_path / "sent.zip", tmp_path / "sent"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=HOUSE, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOUSE / name, tmp_path / "clone" / name, follow_symlinks=False)
    create_package(str(tmp_path / "clone"), packed, include_gitignore=True)
    shutil.unpack_archive(packed, sent)
    script = [sys.executable, "-I", "pipeline/certify_all.py", "no-such-job.yaml"]
    result = subprocess.run(script, cwd=sent, capture_output=True, text=True, check=False)
    assert result.stderr.startswith("error: no-such-job.yaml: cannot read the job file")
    assert (sent / "src" / "smoothcert" / "workers" / "certifier.py").is_file()

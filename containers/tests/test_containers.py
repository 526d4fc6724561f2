"""The Dockerfile, the compose file and the programs agree. No engine is needed, and nothing is built or started.

    python3 -m venv .venv && .venv/bin/pip install -r containers/tests/requirements.txt
    .venv/bin/python -m unittest discover -s containers/tests

The programs are those of target/debug, or of the folder that DOTMASK_PROGRAMS names.
"""

import datetime
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
DOCKERFILE = CONTAINERS / "Dockerfile"
COMPOSE = CONTAINERS / "compose.yaml"
EXAMPLE = CONTAINERS / ".env.example"
PROGRAMS = Path(os.environ.get("DOTMASK_PROGRAMS", ROOT / "target/debug"))
WORKSPACE = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
# Read by libraries, by the dynamic linker, or by the node: no program's help names them.
OTHERS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "LD_LIBRARY_PATH", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_VISIBLE_DEVICES"}
OURS = ("dispatcher", "worker-cpu", "worker-cuda")


def tool(name):
    """The program that a package of requirements.txt brought, beside this Python."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if not found:
        raise FileNotFoundError(f"{name} was not found beside {sys.executable}; run: {sys.executable} -m pip install -r containers/tests/requirements.txt")
    return found


def compose(*arguments, environment=None):
    """What `docker compose` answers, with nothing but `environment` to fill its variables from."""
    command = [tool("docker-compose"), "-f", COMPOSE, "--profile", "*", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"} | (environment or {}))


@cache
def services():
    """The services as compose understands them, every variable filled in from the example."""
    answer = compose("--env-file", EXAMPLE, "config", "--format", "json")
    if answer.returncode or answer.stderr:
        raise AssertionError(f"compose.yaml with .env.example: {answer.stderr}")
    return json.loads(answer.stdout)["services"]


@cache
def stages():
    """The Dockerfile's stages in order: name to what it is from and its instructions."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")))
    stages, current = {}, None
    for line in filter(str.strip, text.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            current = stages[name] = {"from": base, "instructions": []}
        elif current is not None:
            current["instructions"].append((word, rest))
    return stages


def chain(target):
    """The instructions of which a target's image is made, its bases' first."""
    stage = stages().get(target)
    return [] if stage is None else chain(stage["from"]) + stage["instructions"]


@cache
def help_variables(program, command):
    """The variables that `program command --help` names, and those that it wants set."""
    path = PROGRAMS / program
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; run: cargo build -p {program}")
    text = subprocess.run([path, command, "--help"], capture_output=True, text=True, check=True).stdout
    options = re.split(r"\n(?= {2,6}(?:-\w, )?--)", text)
    named = [re.search(r"\[env:\s+(\w+)", option) for option in options]
    # Clap's usage line holds the required options and no others.
    required = set(re.findall(r"--[\w-]+", re.search(r"Usage: .*", text)[0]))
    by_flag = {re.search(r"--[\w-]+", option)[0]: found[1] for option, found in zip(options, named) if found}
    return set(by_flag.values()) | {"DOTMASK_LOG"}, {by_flag[flag] for flag in required if flag in by_flag}


def binary(service):
    return ("dispatcher", "serve") if service == "dispatcher" else ("worker", "run")


class Dockerfile(unittest.TestCase):
    def test_hadolint_has_nothing_to_say(self):
        answer = subprocess.run([tool("hadolint"), "--no-color", "--config", CONTAINERS / "hadolint.yaml", DOCKERFILE], capture_output=True, text=True)
        self.assertEqual((answer.returncode, answer.stdout + answer.stderr), (0, ""))

    def test_images_run_as_nobody_in_particular(self):
        for target in OURS:
            with self.subTest(target):
                users = [rest for word, rest in chain(target) if word == "USER"]
                self.assertEqual(users[-1], "65532:65532", "Kubernetes cannot tell that a name is not root's")

    def test_the_dispatchers_image_has_nothing_of_libtorch(self):
        copied = [rest for word, rest in chain("dispatcher") if word == "COPY"]
        self.assertEqual(copied, ["--from=dispatcher-build /src/target/release/dispatcher /usr/local/bin/dispatcher"])

    def test_variables_of_the_images_are_known_to_their_programs(self):
        for target in OURS:
            named, _ = help_variables(*binary(target))
            for word, rest in chain(target):
                if word == "ENV":
                    names = set(re.findall(r"(?:^|\s)(\w+)=", rest))
                    self.assertTrue(names, rest)
                    self.assertLessEqual(names - OTHERS, named, f"{target}: what {' '.join(binary(target))} --help does not know")

    def test_the_toolchain_is_the_workspaces(self):
        image = re.search(r"^ARG RUST_IMAGE=docker\.io/library/rust:(\S+)-bookworm$", DOCKERFILE.read_text(), re.MULTILINE)
        self.assertEqual(image[1], WORKSPACE["package"]["rust-version"])

    def test_the_context_holds_every_member_of_the_workspace(self):
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        needed = {member.split("/")[0] for member in WORKSPACE["members"]} | {"Cargo.toml", "Cargo.lock", ".cargo", ".sqlx", "migrations"}
        self.assertLessEqual(needed, kept, "cargo needs these, and .dockerignore leaves them out")


class Libtorch(unittest.TestCase):
    """What the images install is what torch itself asks for."""

    @staticmethod
    def pins(variant):
        return dict(re.findall(r"^([\w-]+)==(\S+) \\$", (CONTAINERS / f"libtorch-{variant}.txt").read_text(), re.MULTILINE))

    def test_it_is_the_torch_of_the_checkout(self):
        wanted = re.search(r"^torch_version=(\S+)$", (ROOT / "scripts/setup").read_text(), re.MULTILINE)[1]
        self.assertEqual(self.pins("cpu")["torch"], wanted)

    def test_cuda_libraries_are_those_that_torch_names(self):
        site = (ROOT / ".deps/torch").resolve().parent
        if not (site / "torch").exists():
            self.skipTest("there is no libtorch; run: scripts/setup")
        torch = next(importlib.metadata.distributions(name="torch", path=[str(site)]))
        self.assertEqual(torch.version.split("+")[0], self.pins("cpu")["torch"])
        wanted = dict(re.findall(r"^(nvidia-[\w-]+)==([\w.]+)", "\n".join(torch.requires), re.MULTILINE))
        self.assertTrue(wanted, "torch names no library of NVIDIA's")
        pinned = self.pins("cpu") | self.pins("cuda")
        self.assertEqual({name: pinned.get(name) for name in wanted}, wanted)


class Compose(unittest.TestCase):
    def test_it_is_valid_with_the_example(self):
        self.assertEqual(set(services()), {"postgres", "rabbitmq", "garage", *OURS})

    def test_without_passwords_it_is_refused_and_says_what_to_do(self):
        answer = compose("--env-file", "/dev/null", "config", "--quiet")
        self.assertNotEqual(answer.returncode, 0)
        self.assertIn("copy .env.example to .env", answer.stderr)

    def test_variables_are_known_to_the_programs_and_none_is_missing(self):
        for service in OURS:
            with self.subTest(service):
                named, required = help_variables(*binary(service))
                if service == "dispatcher":
                    # For its clients, which run in the same service.
                    named = named | help_variables("dispatcher", "submit")[0]
                given = set(services()[service]["environment"])
                self.assertLessEqual(given - OTHERS, named, f"{' '.join(binary(service))} --help does not know these")
                self.assertTrue(required)
                self.assertLessEqual(required, given, f"{' '.join(binary(service))} wants these too")

    def test_images_are_those_that_build_images_makes_of_the_dockerfiles_targets(self):
        script = (ROOT / "scripts/build-images").read_text()
        self.assertIn("image=dotmask/$target:$version\n", script)
        for service in OURS:
            with self.subTest(service):
                build = services()[service]["build"]
                self.assertEqual(services()[service]["image"], f"dotmask/{build['target']}:{WORKSPACE['package']['version']}")
                self.assertIn(build["target"], stages())
                self.assertEqual((Path(build["context"]), Path(build["context"], build["dockerfile"])), (ROOT, DOCKERFILE))

    def test_servers_are_pinned_and_checked(self):
        for name in set(services()) - set(OURS):
            with self.subTest(name):
                self.assertRegex(services()[name]["image"], r":v?\d+\.\d+(\.\d+)?(-\w+)?$")
                self.assertIn("healthcheck", services()[name])

    def test_ports_are_open_to_this_machine_alone(self):
        ports = [port for service in services().values() for port in service.get("ports", [])]
        self.assertTrue(ports)
        self.assertEqual({port.get("host_ip") for port in ports}, {"127.0.0.1"})

    def test_no_password_is_written_down(self):
        written = yaml.safe_load(COMPOSE.read_text())["services"]
        variables = [(name, variable, value) for name, service in written.items() for variable, value in service["environment"].items()]
        secret = [entry for entry in variables if re.search("PASS|SECRET|KEY|URL", entry[1])]
        self.assertTrue(secret)
        for service, variable, value in secret:
            with self.subTest(f"{service}: {variable}"):
                self.assertRegex(value, r"\$\{\w+:\?")

    def test_no_container_gains_privileges(self):
        for name, service in services().items():
            with self.subTest(name):
                self.assertIn("no-new-privileges:true", service["security_opt"])
                self.assertFalse({"privileged", "cap_add", "pid", "ipc", "network_mode", "userns_mode"} & set(service))

    def test_nothing_of_the_machine_is_mounted_but_the_models(self):
        for name, service in services().items():
            with self.subTest(name):
                binds = [(volume["target"], volume.get("read_only")) for volume in service.get("volumes", []) if volume["type"] == "bind"]
                self.assertLessEqual(set(binds), {("/models", True)})

    def test_our_containers_may_write_nowhere_and_hold_no_capability(self):
        for name in OURS:
            with self.subTest(name):
                service = services()[name]
                self.assertEqual(
                    (service["read_only"], service["cap_drop"], service["security_opt"]), (True, ["ALL"], ["no-new-privileges:true"])
                )


class BuildImages(unittest.TestCase):
    def test_an_unknown_target_is_refused_with_the_known_ones(self):
        answer = subprocess.run([ROOT / "scripts/build-images", "worker"], capture_output=True, text=True)
        self.assertEqual(answer.returncode, 1)
        self.assertIn("there is no target worker", answer.stderr)
        for target in OURS:
            self.assertIn(target, stages())
            self.assertIn(target, answer.stderr)

    def test_labels_are_the_commits(self):
        git = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%H %ct"], capture_output=True, text=True)
        if git.returncode:
            self.skipTest("this is no checkout of git's")
        revision, seconds = git.stdout.split()
        created = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with tempfile.TemporaryDirectory() as folder:
            # An engine that says what it was asked to build.
            engine = Path(folder, "docker")
            engine.write_text('#!/bin/sh\necho "$@"\ncat\n')
            engine.chmod(0o755)
            environment = os.environ | {"DOTMASK_ENGINE": "docker", "PATH": f"{folder}:{os.environ['PATH']}"}
            answer = subprocess.run([ROOT / "scripts/build-images", "worker-cpu"], capture_output=True, text=True, env=environment, check=True)
        version = WORKSPACE["package"]["version"]
        self.assertIn(f"SOURCE_DATE_EPOCH={seconds} --file - --tag dotmask/worker-cpu:{version} .\n", answer.stdout)
        last = answer.stdout[answer.stdout.rindex("\nFROM ") :]
        self.assertTrue(last.startswith("\nFROM worker-cpu\n"), last)
        labels = dict(re.findall(r"org\.opencontainers\.image\.(\w+)=(\S+)", last))
        self.assertIn(labels.pop("revision"), (revision, f"{revision}-dirty"))
        source = labels.pop("source", "https://")
        self.assertTrue(source.startswith("https://") and "@" not in source, source)
        self.assertEqual(labels, {"version": version, "created": created})


if __name__ == "__main__":
    unittest.main()

"""What the chart sets, the programs know. They are looked for in target/debug, or in DOTMASK_PROGRAMS."""

import functools
import os
import re
import subprocess
import unittest
from pathlib import Path

from chart import APP_VERSION, CHART, PROGRAMS, REPOSITORY, VALUE_SETS, component, labels, name, of_kind, only_container, pod_template, render, settings, workloads

PROGRAM = {"dispatcher": "dispatcher", "migration": "dispatcher", "worker": "worker"}
# Read by libraries, not by flags of ours: the AWS SDK and the OpenTelemetry SDK.
OF_LIBRARIES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"}
# Read by the code without a flag: each must be a literal in it.
OF_THE_CODE = {"DOTMASK_LOG", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
# From `extraEnv` of the value set with everything on.
OF_PEOPLE = {"RUST_BACKTRACE", "GOMP_SPINCOUNT", "HTTPS_PROXY"}

# For each command one value that fails when all others have been checked and before any server is asked, and what is then said. No machine has
# that address: it is for documentation.
NO_ADDRESS = ({"DOTMASK_LISTEN": "192.0.2.1:1"}, "cannot listen on 192.0.2.1:1")
LAST_VALUE = {"serve": NO_ADDRESS, "run": NO_ADDRESS, "migrate": ({"DATABASE_URL": "no-url"}, "the database URL is not usable")}


def run(program, *arguments, **options):
    path = PROGRAMS / program
    if not path.exists():
        raise AssertionError(f"{path} is missing: run `make build`, or say in DOTMASK_PROGRAMS where the programs are")
    return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60, **options)


@functools.cache
def variables(program, *command):
    """The environment variables that a command's help names."""
    outcome = run(program, *command, "--help")
    if outcome.returncode != 0:
        raise AssertionError(f"{program} {' '.join(command)} --help: {outcome.stderr}")
    return set(re.findall(r"\[env:\s+(\w+)", outcome.stdout))


class Settings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.workloads = []
        for values_name, values in VALUE_SETS.items():
            objects = render(values)
            cls.workloads += [(f"{values_name}: {name(made)}", made, *settings(made, objects)) for made in workloads(objects)]

    def test_every_command_and_variable_exists_in_the_program(self):
        sources = "".join(path.read_text() for folder in ("crates", "dispatcher", "worker") for path in (REPOSITORY / folder).glob("**/src/**/*.rs"))
        for where, made, plain, others in self.workloads:
            known = variables(PROGRAM[component(made)], *only_container(made)["args"])
            for variable in sorted((plain.keys() | others) - OF_LIBRARIES - OF_PEOPLE):
                with self.subTest(where, variable=variable):
                    is_known = f'"{variable}"' in sources if variable in OF_THE_CODE else variable in known
                    self.assertTrue(is_known, f"{PROGRAM[component(made)]} does not know {variable}")

    def test_the_programs_take_the_values(self):
        for where, made, plain, _ in self.workloads:
            with self.subTest(where):
                (command,) = only_container(made)["args"]
                last, words = LAST_VALUE[command]
                others = {"DATABASE_URL": "postgres://u@127.0.0.1:1/d", "AMQP_URL": "amqp://127.0.0.1:1", "POD_NAME": "p", "POD_NAMESPACE": "n", "KUBERNETES_SERVICE_HOST": "127.0.0.1"}
                ours = {key: value for key, value in plain.items() if key not in OF_LIBRARIES}
                if "DOTMASK_CA_FILE" in ours:
                    # In place of the one that is mounted in a pod.
                    ours["DOTMASK_CA_FILE"] = str(Path(__file__).parent / "authority.pem")
                outcome = run(PROGRAM[component(made)], command, env={"PATH": os.environ["PATH"]} | others | ours | last)
                self.assertIn(words, outcome.stderr)
                self.assertNotEqual(outcome.returncode, 0)

    def test_the_dispatcher_answers_what_keda_asks(self):
        sources = "".join(path.read_text() for path in (REPOSITORY / "dispatcher" / "src" / "api").glob("**/*.rs"))
        objects = render(VALUE_SETS["everything-on"])
        for scaled in of_kind(objects, "ScaledObject"):
            for trigger in scaled["spec"]["triggers"]:
                pool = labels(scaled)["dotmask/pool"]
                path = re.sub(r"^http://[^/]+", "", trigger["metadata"]["url"]).replace(pool, "{name}")
                with self.subTest(name(scaled), trigger=trigger["name"]):
                    self.assertTrue(f'"{path}"' in sources, f"the API has no {path}")
                    self.assertRegex(sources, rf"pub {trigger['metadata']['valueLocation']}: (i64|f64),")

    def test_a_dispatcher_has_the_time_it_takes_to_end(self):
        def seconds(path, constant):
            return int(re.search(rf"const {constant}: Duration = Duration::from_secs\((\d+)\);", (REPOSITORY / path).read_text())[1])

        takes = seconds("dispatcher/src/serve.rs", "DRAIN") + seconds("crates/telemetry/src/traces.rs", "FLUSH")
        for where, made, _, _ in self.workloads:
            if component(made) == "dispatcher":
                pause = only_container(made)["lifecycle"]["preStop"]["sleep"]["seconds"]
                self.assertGreaterEqual(pod_template(made)["spec"]["terminationGracePeriodSeconds"], pause + takes, where)

    def test_the_chart_is_of_the_programs_version(self):
        workspace = re.search(r'^version = "(.+)"', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)
        self.assertEqual(APP_VERSION, workspace[1])

    def test_pools_are_named_as_in_the_database(self):
        schema = (CHART / "values.schema.json").read_text()
        (pattern,) = re.findall(r"name text PRIMARY KEY CHECK \(name ~ '(.+?)'\)", (REPOSITORY / "migrations" / "0001_initial.up.sql").read_text())
        self.assertIn(f'"poolName": {{"type": "string", "pattern": "{pattern}"}}', schema)


if __name__ == "__main__":
    unittest.main()

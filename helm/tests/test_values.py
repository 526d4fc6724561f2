"""values.yaml, its schema and the README say the same."""

import json
import re
import unittest

import yaml
from chart import CHART, REPOSITORY
from readme import UndescribedValue, rows, updated

VALUES = (CHART / "values.yaml").read_text()


class Values(unittest.TestCase):
    def test_the_readme_is_up_to_date(self):
        readme = (CHART / "README.md").read_text()
        self.assertEqual(readme, updated(readme, VALUES), "run helm/tests/readme.py")

    def test_the_runbook_speaks_of_values_that_exist(self):
        runbook = (REPOSITORY / "docs" / "RUNBOOK.md").read_text()
        # The client's own variable is no value.
        named = set(re.findall(r"(?:DOTMASK|AWS|OTEL)_[A-Z_]+", runbook)) - {"DOTMASK_TOKEN"}
        self.assertEqual(named, set(), "variables; on Kubernetes people set values")
        known = {path for path, _, _ in rows(VALUES)}
        # With its groups, and the short names of what a pool has.
        known = {".".join(parts[start:end]) for parts in (path.split(".") for path in known) for start in range(len(parts)) for end in range(start + 1, len(parts) + 1)}
        spoken_of = re.findall(r"`([a-zA-Z.]*[a-z][A-Z][a-zA-Z.]*)`", runbook)
        self.assertIn("networkPolicy.metricsFrom", spoken_of)
        self.assertEqual([value for value in spoken_of if value not in known], [])

    def test_a_value_without_a_description_is_named(self):
        with self.assertRaisesRegex(UndescribedValue, r"values.yaml:5: a.c has no comment"):
            list(rows("a:\n  # -- Described.\n  b: 1\n\n  c: 2\n"))
        # An ordinary comment is none.
        with self.assertRaises(UndescribedValue):
            list(rows("# Why.\na: 1\n"))

    def test_every_value_of_the_schema_has_a_default_and_a_description(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        described = {path for path, _, _ in rows(VALUES)}

        def walk(node, path):
            if path in described:
                return
            node = schema["definitions"][node["$ref"].removeprefix("#/definitions/")] if "$ref" in node else node
            self.assertIn("properties", node, f"{path} is in the schema and not in values.yaml")
            for key, child in node["properties"].items():
                walk(child, f"{path}.{key}" if path else key)

        del schema["properties"]["global"]
        walk(schema, "")

    def test_the_schema_says_what_every_object_may_hold(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        # Kubernetes' own objects, which are checked as manifests; and what is Helm's.
        free = {"global", "valueFrom", "nodeAffinity", "podAffinity", "podAntiAffinity", "matchExpressions", "volumeClaimTemplate"}

        def walk(node, key):
            if isinstance(node, dict):
                if node.get("type") == "object" and key not in free:
                    self.assertIn("additionalProperties", node, key)
                for name, child in node.items():
                    walk(child, key if name == "items" else name)

        walk(schema, "")

    def test_the_defaults_are_yaml_without_surprises(self):
        self.assertIsInstance(yaml.safe_load(VALUES), dict)


if __name__ == "__main__":
    unittest.main()

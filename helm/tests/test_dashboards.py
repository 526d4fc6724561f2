"""The boards: Grafana knows their every field, and what they say of the cost is right."""

import json
import pathlib
import subprocess
import tempfile
import unittest

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

BOARDS = sorted((pathlib.Path(__file__).resolve().parent.parent / "dotmask" / "dashboards").glob("*.json"))


def differences(ours, grafanas, place):
    if isinstance(ours, dict) and isinstance(grafanas, dict):
        for name, value in ours.items():
            yield from differences(value, grafanas[name], f"{place}/{name}") if name in grafanas else [f"{place}/{name} is unknown"]
    elif isinstance(ours, list) and isinstance(grafanas, list) and len(ours) == len(grafanas):
        for number, (one, other) in enumerate(zip(ours, grafanas)):
            yield from differences(one, other, f"{place}/{number}")
    elif ours != grafanas:
        yield f"{place} is {ours!r}, and {grafanas!r} to Grafana"


class Dashboards(unittest.TestCase):
    def test_grafana_knows_every_field(self):
        # What its types do not know vanishes when a board is read and written again.
        register_default_plugins()
        self.assertTrue(BOARDS)
        for path in BOARDS:
            ours = json.loads(path.read_text())
            with self.subTest(path.name):
                read = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
                self.assertEqual(list(differences(ours, read, "")), [])

    def test_the_cost_is_of_all_workers_that_run(self):
        board = json.loads(next(path for path in BOARDS if "overview" in path.name).read_text())
        queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", []) if "$gpu_hour_price" in target["expr"]]
        self.assertEqual(len(queries), 3)
        expected = []
        for query in queries:
            for variable, value in {"$gpu_hour_price": "6", "$namespace": "a", "$pool": "p", "$__range": "60m"}.items():
                query = query.replace(variable, value)
            # Two workers at 6, and sixty images an hour; whether an hour has 60 or 61 samples differs between versions of Prometheus.
            value = 200 if "sum_over_time" in query else 12
            samples = [{"labels": '{pool="p"}' if "by (pool)" in query else "{}", "value": value}]
            expected.append({"expr": f"round({query}, {value // 4})", "eval_time": "60m", "exp_samples": samples})
        ready = [{"series": f'dotmask_ready{{namespace="a",pool="p",instance="w{ready}"}}', "values": f"{ready}x70"} for ready in (0, 1)]
        answered = {"series": 'dotmask_worker_jobs_total{namespace="a",pool="p",instance="w1",outcome="succeeded"}', "values": "0+1x70"}
        with tempfile.TemporaryDirectory() as folder:
            tests = pathlib.Path(folder) / "cost.json"
            tests.write_text(json.dumps({"evaluation_interval": "1m", "tests": [{"interval": "1m", "input_series": [*ready, answered], "promql_expr_test": expected}]}))
            outcome = subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True, timeout=60)
        self.assertEqual(outcome.returncode, 0, outcome.stdout + outcome.stderr)


if __name__ == "__main__":
    unittest.main()

"""The boards against Grafana's own model: what its types do not know vanishes when they are read and written again, and is found by that."""

import json
import pathlib
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
        register_default_plugins()
        self.assertTrue(BOARDS)
        for path in BOARDS:
            ours = json.loads(path.read_text())
            with self.subTest(path.name):
                read = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
                self.assertEqual(list(differences(ours, read, "")), [])


if __name__ == "__main__":
    unittest.main()

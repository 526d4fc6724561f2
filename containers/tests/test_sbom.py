"""scripts/sbom lists what is in an image, in a form that CycloneDX's own schema takes."""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest
from functools import cache
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
LOCKED = {
    (package["name"], package["version"]): package.get("checksum")
    for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
}


def text(target, *arguments):
    command = [sys.executable, ROOT / "scripts/sbom", target, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def components(target):
    return json.loads(text(target))["components"]


def of_kind(kind, components):
    return [component for component in components if component.get("purl", "").startswith(f"pkg:{kind}/")]


class Sbom(unittest.TestCase):
    def test_it_is_valid(self):
        for target in ("dispatcher", "worker-cpu", "worker-cuda"):
            with self.subTest(target):
                self.assertIsNone(JsonStrictValidator(SchemaVersion.V1_6).validate_str(text(target)))

    def test_every_crate_is_the_locked_one_and_has_a_licence(self):
        for target in ("dispatcher", "worker-cpu"):
            crates = of_kind("cargo", components(target))
            self.assertGreater(len(crates), 100)
            for crate in crates:
                with self.subTest(crate["purl"]):
                    self.assertEqual([found["content"] for found in crate["hashes"]], [LOCKED[crate["name"], crate["version"]]])
                    self.assertTrue(crate["licenses"])

    def test_crates_are_those_that_are_linked(self):
        names = {target: {component["name"] for component in components(target)} for target in ("dispatcher", "worker-cpu")}
        self.assertLessEqual({"axum", "sqlx-postgres", "openjp2"}, names["dispatcher"])
        self.assertLessEqual({"tch", "lapin", "dicom-parser"}, names["worker-cpu"])
        # A part of the API, of the build, and of the tests.
        self.assertFalse({"tch", "cc", "serde_derive", "proptest"} & names["dispatcher"])

    def test_libtorch_is_what_the_image_installs(self):
        pinned = {}
        for name in ("cpu", "cuda"):
            lines = (ROOT / f"containers/libtorch-{name}.txt").read_text()
            pinned |= dict(re.findall(r"^([\w-]+)==\S+ \\\n\s+--hash=sha256:(\w+)", lines, re.MULTILINE))
        wheels = {wheel["name"]: wheel["hashes"][0]["content"] for wheel in of_kind("pypi", components("worker-cuda"))}
        self.assertIn("torch", wheels)
        self.assertEqual(wheels, pinned)
        self.assertFalse(of_kind("pypi", components("dispatcher")))

    def test_debian_packages_are_read_out_of_an_unpacked_image(self):
        with tempfile.TemporaryDirectory() as folder:
            status = Path(folder, "var/lib/dpkg/status.d")
            status.mkdir(parents=True)
            (status / "libc6").write_text("Package: libc6\nVersion: 2.36-9+deb12u10\nDescription: GNU C Library\n about it\n")
            (status / "libc6.md5sums").write_text("0  usr/lib/libc.so.6\n")
            found = of_kind("deb", json.loads(text("dispatcher", "--root", folder))["components"])
        self.assertEqual([(one["name"], one["version"]) for one in found], [("libc6", "2.36-9+deb12u10")])

    def test_a_folder_without_packages_is_refused(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(subprocess.CalledProcessError) as refused:
            text("dispatcher", "--root", folder)
        self.assertIn("has no Debian packages", refused.exception.stderr)


if __name__ == "__main__":
    unittest.main()

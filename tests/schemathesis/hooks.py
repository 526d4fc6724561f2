"""Manifests, of which the document says that they are lines of JSON: schemathesis makes none by itself."""

import json

import schemathesis
from hypothesis import strategies as st

points = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.just(1)), min_size=1, max_size=3)
image = st.sampled_from(["s3://scans/a.png", "s3://scans/b/c.nii.gz", "s3://scans/\u00fc.dcm"])
segmented = st.fixed_dictionaries({"image": image, "points": points}, optional={"id": st.text("ab-", min_size=1), "slice": st.integers(0, 9)})
evaluated = st.fixed_dictionaries({"image": image, "truth": image, "setting": st.sampled_from(["1/0", "3/3"]), "repeats": st.integers(1, 3)})
manifest = st.lists(st.one_of(segmented, evaluated), min_size=1, max_size=4).map(
    lambda lines: "\n".join(map(json.dumps, lines)).encode()
)
schemathesis.openapi.media_type("application/x-ndjson", manifest)

"""The chart as the checks see it: its value sets, and what it makes of them."""

import copy
import os
from pathlib import Path

import helm_python as helm
import yaml

REPOSITORY = Path(__file__).parent.parent.parent
CHART = REPOSITORY / "helm" / "dotmask"
PROGRAMS = Path(os.environ.get("DOTMASK_PROGRAMS", REPOSITORY / "target" / "debug"))
RELEASE, NAMESPACE = "night", "imaging"

APP_VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
VALUE_SETS = {path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text()) for path in CHART.glob("ci/*-values.yaml")}


def merged(base, changes):
    """Base with the changes in it, as Helm merges files of values: maps by key, all else replaced."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        both_are_maps = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both_are_maps else value
    return result


def render_files(values, chart=CHART):
    """Path of each template to the text it makes."""
    with helm.Chart.load(chart) as loaded:
        return loaded.render(values, name=RELEASE, namespace=NAMESPACE)


def render(values, chart=CHART):
    """Every object that the values make."""
    files = render_files(values, chart)
    texts = (text for path, text in sorted(files.items()) if path.endswith(".yaml"))
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def of_kind(objects, kind):
    return [made for made in objects if made["kind"] == kind]


def name(made):
    return made["metadata"]["name"]


def labels(made):
    return made["metadata"]["labels"]


def component(made):
    return labels(made)["app.kubernetes.io/component"]


def pod_template(made):
    """A Deployment's or a Job's template of a pod."""
    return made["spec"]["template"]


def workloads(objects):
    """Everything that makes pods."""
    return of_kind(objects, "Deployment") + of_kind(objects, "Job")


def only_container(made):
    (container,) = pod_template(made)["spec"]["containers"]
    return container


def is_hook(made):
    return "helm.sh/hook" in made["metadata"].get("annotations", {})


def settings(made, objects):
    """The plain environment variables of a workload's container, and the names of those out of Secrets and fields."""
    container = only_container(made)
    plain = {}
    for source in container.get("envFrom", []):
        (config,) = [found for found in of_kind(objects, "ConfigMap") if name(found) == source["configMapRef"]["name"]]
        plain |= config["data"]
    plain |= {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    return plain, {entry["name"] for entry in container["env"] if "valueFrom" in entry}

"""What the chart makes of each of its value sets (ci/) is valid, safe, and holds together."""

import functools
import json
import shutil
import tempfile
import unittest
from collections import Counter
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml
from chart import APP_VERSION, CHART, NAMESPACE, VALUE_SETS, component, is_hook, labels, merged, name, of_kind, only_container, pod_template, render, render_files, settings, workloads
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

# The oldest that Chart.yaml allows, and the newest that the validator knows.
KUBERNETES_VERSIONS = ("1.30", "1.37")
CUSTOM_RESOURCES = {"ScaledObject": ScaledObject, "PodMonitor": PodMonitor, "PrometheusRule": PrometheusRule}
# https://kubernetes.io/docs/concepts/security/pod-security-standards/, restricted.
RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
CREDENTIALS = {"DATABASE_URL", "AMQP_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@functools.cache
def rendered():
    """The objects of each value set."""
    return {values_name: render(values) for values_name, values in VALUE_SETS.items()}


def for_each_value_set(test):
    @functools.wraps(test)
    def tests(self):
        for values_name, objects in rendered().items():
            with self.subTest(values=values_name):
                test(self, objects)

    return tests


def for_each_object(*kinds):
    """The test is given each object of these kinds, of all where none is said, and all objects beside it."""

    def decorate(test):
        @functools.wraps(test)
        def tests(self):
            for values_name, objects in rendered().items():
                for made in objects:
                    if not kinds or made["kind"] in kinds:
                        with self.subTest(values=values_name, kind=made["kind"], name=name(made)):
                            test(self, made, objects)

        return tests

    return decorate


def selects(selector, wanted):
    return selector.items() <= wanted.items()


def has_token(made):
    volumes = pod_template(made)["spec"]["volumes"]
    return any("serviceAccountToken" in source for volume in volumes for source in volume.get("projected", {}).get("sources", []))


class EachValueSet(unittest.TestCase):
    def test_there_are_value_sets(self):
        wanted = {"defaults", "cpu-only", "two-gpu-pools-on-spot", "external-secrets", "everything-on"}
        self.assertLessEqual(wanted, VALUE_SETS.keys())

    def test_the_value_sets_show_both_sides(self):
        # Else a test of what pods with a token have, say, would look at none.
        objects = [made for objects in rendered().values() for made in objects]
        self.assertEqual({has_token(made) for made in of_kind(objects, "Deployment")}, {True, False})
        self.assertEqual({config["data"].get("DOTMASK_DEVICE") for config in of_kind(objects, "ConfigMap")} - {None}, {"cuda", "cpu"})
        kinds = {made["kind"] for made in objects}
        self.assertLessEqual({"HorizontalPodAutoscaler", "Ingress", "PodMonitor", "RoleBinding", "ScaledObject"}, kinds)

    def test_passes_helms_strict_lint(self):
        for values_name, values in VALUE_SETS.items():
            with self.subTest(values=values_name):
                report = helm.lint(CHART, values, strict=True, namespace=NAMESPACE)
                # Severity 1 is advice: that the chart has no icon.
                findings = [finding for finding in report["messages"] if finding["severity"] > 1]
                self.assertEqual((report["total_charts_linted"], findings, report["errors"]), (1, [], []))

    def test_every_template_makes_something(self):
        made = {path for values in VALUE_SETS.values() for path, text in render_files(values).items() if text.strip()}
        # checks.yaml speaks only where something is wrong; the others hand on files.
        excused = {"checks.yaml", "monitoring/dashboards.yaml", "monitoring/prometheusrule.yaml"}
        templates = {str(path.relative_to(CHART / "templates")) for path in CHART.glob("templates/**/*.yaml")} - excused
        self.assertEqual(templates, {path.removeprefix("dotmask/templates/") for path in made} & templates)

    def test_every_rule_file_and_dashboard_of_the_chart_is_in_the_cluster(self):
        objects = rendered()["everything-on"]
        rules = {path.stem for path in CHART.glob("rules/*.yaml")}
        self.assertEqual({name(made) for made in of_kind(objects, "PrometheusRule")}, {f"masks-{stem}" for stem in rules})
        dashboards = {path.name for path in CHART.glob("dashboards/*.json")}
        config_maps = of_kind(objects, "ConfigMap")
        self.assertEqual({file for config in config_maps for file in config["data"] if file.endswith(".json")}, dashboards)
        for config in config_maps:
            # The API server takes no more.
            self.assertLess(len(json.dumps(config)), 2**20, name(config))

    @for_each_object()
    def test_is_valid_for_kubernetes(self, made, _):
        if made["kind"] not in CUSTOM_RESOURCES:
            for version in KUBERNETES_VERSIONS:
                with self.subTest(version=version):
                    kubernetes_validate.validate(made, version, strict=True)

    @for_each_object(*CUSTOM_RESOURCES)
    def test_custom_resources_are_valid_and_have_no_unknown_field(self, made, _):
        # The models drop what they do not know: what is gone afterwards was misspelt.
        understood = CUSTOM_RESOURCES[made["kind"]].model_validate(made).model_dump(mode="json", by_alias=True, exclude_unset=True)
        self.assertEqual(made, understood)

    @for_each_value_set
    def test_no_two_objects_have_one_name(self, objects):
        count = Counter((made["kind"], name(made)) for made in objects)
        self.assertEqual([key for key, times in count.items() if times > 1], [])

    @for_each_object("Deployment", "Job")
    def test_every_pod_meets_the_restricted_standard(self, made, _):
        pod = pod_template(made)["spec"]
        self.assertEqual([field for field in ("hostNetwork", "hostPID", "hostIPC", "initContainers") if field in pod], [])
        self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
        self.assertGreater(pod["securityContext"]["runAsUser"], 0)
        self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        for container in pod["containers"]:
            expected = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            self.assertEqual(container["securityContext"], expected)
            self.assertFalse([port for port in container.get("ports", []) if "hostPort" in port])
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            self.assertIn("/tmp", mounts, "a read-only root needs it")
            self.assertIn("limits", container["resources"])
        for volume in pod["volumes"]:
            self.assertLessEqual(volume.keys() - {"name"}, RESTRICTED_VOLUMES)

    @for_each_value_set
    def test_only_workers_that_mark_their_pods_have_a_token(self, objects):
        having = set()
        for made in workloads(objects):
            pod = pod_template(made)["spec"]
            self.assertIs(pod["automountServiceAccountToken"], False, name(made))
            plain, fields = settings(made, objects)
            marks = plain.get("DOTMASK_POD_DELETION_COST") == "true"
            self.assertEqual((has_token(made), {"POD_NAME", "POD_NAMESPACE"} <= fields), (marks, marks), name(made))
            having |= {pod["serviceAccountName"]} if marks else set()
        for account in of_kind(objects, "ServiceAccount"):
            self.assertIs(account["automountServiceAccountToken"], False, name(account))
        roles, bindings = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")
        self.assertEqual((len(roles), len(bindings)), (1, 1) if having else (0, 0))
        for role, binding in zip(roles, bindings):
            self.assertEqual(role["rules"], [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}])
            self.assertEqual(binding["roleRef"]["name"], name(role))
            self.assertEqual({subject["name"] for subject in binding["subjects"]}, having)

    @for_each_value_set
    def test_credentials_come_from_secrets_that_exist(self, objects):
        self.assertEqual(of_kind(objects, "Secret"), [])
        for made in workloads(objects):
            plain, _ = settings(made, objects)
            self.assertFalse(CREDENTIALS & plain.keys(), name(made))
            entries = {entry["name"]: entry for entry in only_container(made)["env"]}
            wanted = {"DATABASE_URL"} if component(made) == "migration" else {"DATABASE_URL", "AMQP_URL"}
            self.assertLessEqual(wanted, entries.keys(), name(made))
            for credential in CREDENTIALS & entries.keys():
                self.assertIn("secretKeyRef", entries[credential]["valueFrom"], name(made))

    @for_each_object("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor")
    def test_selectors_find_the_pods_they_mean_and_no_others(self, made, objects):
        spec = made["spec"]
        selector = spec.get("selector") or spec.get("podSelector")
        selector = selector.get("matchLabels", selector)
        found = [other for other in workloads(objects) if selects(selector, pod_template(other)["metadata"]["labels"])]
        if made["kind"] == "Deployment":
            self.assertEqual(found, [made])
        else:
            self.assertEqual(found, [other for other in workloads(objects) if component(other) == component(made)])
            self.assertTrue(found)

    @for_each_value_set
    def test_what_is_named_is_there(self, objects):
        there = {(made["kind"], name(made)) for made in objects}
        for made in objects:
            needs = []
            match made["kind"]:
                case "HorizontalPodAutoscaler" | "ScaledObject":
                    needs = [("Deployment", made["spec"]["scaleTargetRef"]["name"])]
                case "Ingress":
                    paths = (path for rule in made["spec"]["rules"] for path in rule["http"]["paths"])
                    needs = [("Service", path["backend"]["service"]["name"]) for path in paths]
                case "Deployment" | "Job":
                    account = pod_template(made)["spec"]["serviceAccountName"]
                    # One set brings its own.
                    needs = [] if account == "platform" else [("ServiceAccount", account)]
                    needs += [("ConfigMap", source["configMapRef"]["name"]) for source in only_container(made).get("envFrom", [])]
            self.assertLessEqual(set(needs), there, name(made))

    @for_each_object("Deployment")
    def test_named_ports_are_ports_of_the_pods(self, made, objects):
        container = only_container(made)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        probes = [container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe") if probe in container]
        self.assertLessEqual({probe["port"] for probe in probes}, ports.keys())
        plain, _ = settings(made, objects)
        self.assertEqual(plain["DOTMASK_LISTEN"], f"0.0.0.0:{ports['http']}")
        # A dispatcher's metrics, which ask for no token, are never where its API is.
        metrics_port = "http"
        if component(made) == "dispatcher":
            metrics_port = "metrics"
            self.assertEqual(plain["DOTMASK_METRICS_LISTEN"], f"0.0.0.0:{ports['metrics']}")
        self.assertLessEqual({probe["port"] for probe in probes}, {metrics_port})
        for service in of_kind(objects, "Service"):
            port, is_api = service["spec"]["ports"][0]["targetPort"], name(service).endswith("-dispatcher")
            self.assertEqual((len(service["spec"]["ports"]), port), (1, "http" if is_api else "metrics"))
            self.assertTrue(is_api or service["spec"]["type"] == "ClusterIP")
        for monitor in of_kind(objects, "PodMonitor"):
            if component(monitor) == component(made):
                self.assertEqual([endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]], [metrics_port])

    @for_each_object("Deployment", "Job")
    def test_mounts_have_volumes(self, made, _):
        volumes = [volume["name"] for volume in pod_template(made)["spec"]["volumes"]]
        mounts = [mount["name"] for mount in only_container(made)["volumeMounts"]]
        self.assertEqual(sorted(volumes), sorted(mounts))

    @for_each_object("Deployment", "Job")
    def test_every_program_reads_the_authorities_where_they_are_mounted(self, made, objects):
        volumes = {volume["name"]: volume for volume in pod_template(made)["spec"]["volumes"]}
        file = settings(made, objects)[0].get("DOTMASK_CA_FILE")
        self.assertEqual(file is not None, "authorities" in volumes)
        if file:
            (mount,) = [mount for mount in only_container(made)["volumeMounts"] if mount["name"] == "authorities"]
            paths = [item["path"] for item in volumes["authorities"]["configMap"]["items"]]
            self.assertEqual([file], [f"{mount['mountPath']}/{path}" for path in paths])

    @for_each_value_set
    def test_the_migration_needs_nothing_that_comes_after_it(self, objects):
        (job,) = of_kind(objects, "Job")
        hooks = {(made["kind"], name(made)): made for made in objects if is_hook(made)}
        pod = pod_template(job)["spec"]
        self.assertIn(("Job", name(job)), hooks)
        self.assertIn(("ServiceAccount", pod["serviceAccountName"]), hooks)
        self.assertNotIn("envFrom", only_container(job))
        # The authorities' ConfigMap is people's own, and there before.
        self.assertEqual([volume for volume in pod["volumes"] if "configMap" in volume and volume["name"] != "authorities"], [])
        for made in hooks.values():
            annotations = made["metadata"]["annotations"]
            self.assertEqual(annotations["helm.sh/hook"], "pre-install,pre-upgrade")
            self.assertEqual(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded")
            if made is not job:
                self.assertLess(int(annotations["helm.sh/hook-weight"]), int(job["metadata"]["annotations"]["helm.sh/hook-weight"]))

    @for_each_object("Deployment")
    def test_each_gpu_pool_asks_for_one_gpu_and_each_cpu_pool_for_none(self, made, objects):
        if component(made) == "worker":
            device = settings(made, objects)[0]["DOTMASK_DEVICE"]
            gpus = {key: count for key, count in only_container(made)["resources"]["limits"].items() if "/" in key}
            self.assertEqual(list(gpus.values()), [1] if device == "cuda" else [])

    @for_each_object("Deployment")
    def test_the_autoscaler_alone_says_how_many(self, made, objects):
        scalers = of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject")
        is_scaled = any(scaler["spec"]["scaleTargetRef"]["name"] == name(made) for scaler in scalers)
        self.assertNotEqual(is_scaled, "replicas" in made["spec"])

    @for_each_object("ScaledObject")
    def test_keda_asks_the_dispatcher_about_the_pool(self, made, objects):
        (service,) = [service for service in of_kind(objects, "Service") if name(service).endswith("-metrics")]
        host = f"http://{name(service)}.{NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
        pool = labels(made)["dotmask/pool"]
        (deployment,) = [other for other in of_kind(objects, "Deployment") if name(other) == made["spec"]["scaleTargetRef"]["name"]]
        self.assertEqual(settings(deployment, objects)[0]["DOTMASK_POOL"], pool)
        triggers = {trigger["name"]: trigger for trigger in made["spec"]["triggers"]}
        self.assertEqual(triggers.keys(), {"open-work", "busy-workers"})
        for trigger in triggers.values():
            self.assertEqual((trigger["type"], trigger["metricType"]), ("metrics-api", "AverageValue"))
            self.assertEqual(trigger["metadata"]["url"], f"{host}/workloads/{pool}")
            # KEDA reads these as text.
            self.assertEqual({type(value) for value in trigger["metadata"].values()}, {str})
        self.assertEqual(triggers["open-work"]["metadata"]["valueLocation"], "open_work_seconds")
        self.assertEqual(triggers["busy-workers"]["metadata"]["valueLocation"], "busy_workers")
        self.assertEqual(triggers["busy-workers"]["metadata"]["targetValue"], "1")
        self.assertNotIn("fallback", made["spec"])

    @for_each_object("Deployment")
    def test_a_dispatcher_is_replaced_without_a_gap(self, made, _):
        if component(made) == "dispatcher":
            self.assertEqual(made["spec"]["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
            pause = only_container(made)["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertGreater(pause, 0)

    @for_each_object("PodDisruptionBudget")
    def test_dispatchers_that_are_not_ready_hold_up_no_drain(self, made, _):
        self.assertEqual(made["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow")

    @for_each_object("Deployment")
    def test_workers_give_back_their_jobs_before_they_are_killed(self, made, objects):
        if component(made) == "worker":
            drain = int(settings(made, objects)[0]["DOTMASK_DRAIN_SECONDS"])
            self.assertGreaterEqual(pod_template(made)["spec"]["terminationGracePeriodSeconds"], drain + 5)


class Changes(unittest.TestCase):
    """What one changed value does."""

    def setUp(self):
        self.defaults = VALUE_SETS["defaults"]

    def deployments(self, changes):
        return {component(made): made for made in of_kind(render(merged(self.defaults, changes)), "Deployment")}

    def test_pods_are_replaced_when_their_settings_change_and_only_then(self):
        def checksums(changes):
            return {part: pod_template(made)["metadata"]["annotations"]["checksum/config"] for part, made in self.deployments(changes).items()}

        before = checksums({})
        after = checksums({"dispatcher": {"reapSeconds": 2}})
        self.assertNotEqual(after["dispatcher"], before["dispatcher"])
        self.assertEqual(after["worker"], before["worker"])
        self.assertEqual(checksums({"poolDefaults": {"prefetch": 3}})["dispatcher"], before["dispatcher"])
        self.assertNotEqual(checksums({"poolDefaults": {"prefetch": 3}})["worker"], before["worker"])
        self.assertEqual(checksums({"poolDefaults": {"replicas": 9}, "podMonitor": {"enabled": True}}), before)

    def test_a_pool_takes_what_is_false_or_zero_over_the_defaults(self):
        changes = {"poolDefaults": {"podDeletionCost": True, "drainSeconds": 3}, "pools": {"vit-b": {"podDeletionCost": False, "drainSeconds": 0, "replicas": 0}}}
        objects = render(merged(self.defaults, changes))
        (worker,) = [made for made in of_kind(objects, "Deployment") if component(made) == "worker"]
        plain, _ = settings(worker, objects)
        self.assertEqual((plain["DOTMASK_DRAIN_SECONDS"], worker["spec"]["replicas"]), ("0", 0))
        self.assertNotIn("DOTMASK_POD_DELETION_COST", plain)

    def test_pools_do_not_leak_into_each_other(self):
        changes = {"pools": {"aa": self.defaults["pools"]["vit-b"] | {"threads": 3, "nodeSelector": {"gpu": "a"}}}}
        objects = render(merged(self.defaults, changes))
        (other,) = [made for made in of_kind(objects, "Deployment") if labels(made).get("dotmask/pool") == "vit-b"]
        self.assertNotIn("DOTMASK_THREADS", settings(other, objects)[0])
        self.assertNotIn("nodeSelector", pod_template(other)["spec"])

    def test_a_digest_goes_before_the_tag(self):
        digest = "sha256:" + "a" * 64
        made = self.deployments({"image": {"dispatcher": {"tag": "1", "digest": digest}}})
        self.assertEqual(only_container(made["dispatcher"])["image"], f"registry.example.com/dotmask/dispatcher@{digest}")
        self.assertEqual(only_container(made["worker"])["image"], f"registry.example.com/dotmask/worker-cuda:{APP_VERSION}")

    def test_another_image_of_a_pool_leaves_the_digest_behind(self):
        digests = ["sha256:" + letter * 64 for letter in "ab"]
        for own, expected in (
            ({}, f"registry.example.com/dotmask/worker-cuda@{digests[0]}"),
            ({"repository": "worker-cpu"}, "worker-cpu:1"),
            ({"tag": "2"}, "registry.example.com/dotmask/worker-cuda:2"),
            ({"repository": "worker-cpu", "digest": digests[1]}, f"worker-cpu@{digests[1]}"),
        ):
            with self.subTest(own):
                changes = {"image": {"worker": {"tag": "1", "digest": digests[0]}}, "pools": {"vit-b": {"image": own}}}
                self.assertEqual(only_container(self.deployments(changes)["worker"])["image"], expected)

    def test_the_ports_of_the_store_and_the_collector_are_open(self):
        objects = render(merged(self.defaults, {"s3": {"endpoint": "http://minio.minio:9000"}, "otel": {"endpoint": "http://collector:4319"}}))
        policies = {component(made): made["spec"] for made in of_kind(objects, "NetworkPolicy")}

        def ports(part):
            return {port["port"] for rule in policies[part]["egress"] for port in rule["ports"]}

        self.assertEqual(ports("worker"), {53, 5432, 5672, 5671, 443, 9000, 4318, 4319})
        self.assertEqual(ports("dispatcher"), {53, 5432, 5672, 5671, 4318, 4319})
        self.assertEqual(ports("migration"), {53, 5432})

    def test_the_port_of_a_url_without_one_is_its_schemes(self):
        for scheme, own in (("http", 80), ("https", 443)):
            for host, path in (("minio.minio.svc", ""), ("minio", "/a:1/b"), ("[fd00::10]", "")):
                with self.subTest(scheme=scheme, host=host):
                    store, collector = {"endpoint": f"{scheme}://{host}"}, {"endpoint": f"{scheme}://{host}{path}"}
                    egress = {"s3": {"ports": [1]}, "otlp": {"ports": [2]}}
                    objects = render(merged(self.defaults, {"s3": store, "otel": collector, "networkPolicy": {"egress": egress}}))
                    for part, configured in (("worker", {1, 2}), ("dispatcher", {2})):
                        (policy,) = [made for made in of_kind(objects, "NetworkPolicy") if component(made) == part]
                        ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
                        self.assertEqual(ports, {53, 5432, 5672, 5671, own} | configured)

    def test_no_name_is_too_long(self):
        # What Kubernetes takes of a Service and of the label that a Job puts on its pods.
        for long in ({"fullnameOverride": "a" * 63}, {"nameOverride": "b" * 63}):
            with self.subTest(long):
                for made in render(merged({"image": self.defaults["image"], "dispatcher": {"extraPools": ["on-premises"]}}, long)):
                    self.assertLessEqual(len(name(made)), 63, made["kind"])

    def test_scaling_down_goes_as_fast_as_it_is_told(self):
        for changes, pods in (({}, 1), ({"scaleDownPodsPerMinute": 20}, 20)):
            (scaled,) = of_kind(render(merged(self.defaults, {"keda": {"enabled": True}, "poolDefaults": {"autoscaling": changes}})), "ScaledObject")
            behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            self.assertEqual(behavior["scaleDown"]["policies"], [{"type": "Pods", "value": pods, "periodSeconds": 60}])

    def test_workers_export_a_share_of_the_jobs_where_there_is_a_collector(self):
        def sampling(changes):
            objects = render(merged(self.defaults, changes))
            return {component(made): [settings(made, objects)[0].get(f"OTEL_TRACES_SAMPLER{end}") for end in ("", "_ARG")] for made in of_kind(objects, "Deployment")}

        collector = {"endpoint": "http://collector:4318"}
        self.assertEqual(sampling({"otel": collector}), {"worker": ["parentbased_traceidratio", "0.01"], "dispatcher": [None, None]})
        self.assertEqual(sampling({"otel": collector | {"sampler": "always_on", "samplerArg": 1}})["worker"], ["always_on", "1"])
        self.assertEqual(sampling({})["worker"], [None, None])

    def test_no_peers_means_nobody(self):
        # A rule without peers would let everybody in.
        objects = render(merged(self.defaults, {"networkPolicy": {"apiFrom": [], "metricsFrom": []}}))
        for policy in of_kind(objects, "NetworkPolicy"):
            self.assertIn("Ingress", policy["spec"]["policyTypes"])
            self.assertNotIn("ingress", policy["spec"])

    def test_keda_may_ask_where_it_is_on(self):
        def peers(changes):
            policies = of_kind(render(merged(self.defaults, changes)), "NetworkPolicy")
            (dispatcher,) = [policy for policy in policies if component(policy) == "dispatcher"]
            (metrics,) = [rule for rule in dispatcher["spec"]["ingress"] if rule["ports"] == [{"port": "metrics"}]]
            (api,) = [rule for rule in dispatcher["spec"]["ingress"] if rule["ports"] == [{"port": "http"}]]
            self.assertNotIn(keda, api["from"])
            return metrics["from"]

        keda = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "scaling"}}}
        self.assertIn(keda, peers({"keda": {"enabled": True, "namespace": "scaling"}}))
        self.assertNotIn(keda, peers({"keda": {"namespace": "scaling"}}))

    def test_the_notes_say_what_is_there(self):
        values = merged(self.defaults, {"dispatcher": {"extraPools": ["on-premises"], "service": {"port": 80}}})
        notes = render_files(values)["dotmask/templates/NOTES.txt"]
        (service,) = of_kind(render(values), "Service")
        self.assertIn(f"dotmask {APP_VERSION}, pools: on-premises,vit-b.\n", notes)
        self.assertIn(f"http://{name(service)}.{NAMESPACE}.svc:80\n", notes)
        self.assertIn(f"kubectl -n {NAMESPACE} port-forward svc/{name(service)} 8080:80\n", notes)

    def test_rules_and_dashboards_are_taken_as_they_are(self):
        rules = "groups:\n  - name: dotmask\n    rules:\n      - alert: Stuck\n        expr: up == 0\n        annotations:\n          summary: 'pool {{ $labels.pool }}: {{ $value }}'\n"
        dashboard = '{"title": "{{ pool }}", "panels": [\n  {"legendFormat": "{{pool}}"}\n]}\n'
        values = merged(self.defaults, {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}})
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "dotmask"
            shutil.copytree(CHART, copy)
            for kind, file, text in (("rules", "planted.yaml", rules), ("dashboards", "planted.json", dashboard)):
                (copy / kind).mkdir(exist_ok=True)
                (copy / kind / file).write_text(text)
            objects = render(values, copy)
        (rule,) = [made for made in of_kind(objects, "PrometheusRule") if name(made).endswith("-planted")]
        self.assertEqual(rule["spec"], yaml.safe_load(rules))
        (config,) = [made for made in of_kind(objects, "ConfigMap") if name(made).endswith("-dashboard-planted")]
        self.assertEqual(config["data"].keys(), {"planted.json"})
        self.assertEqual(json.loads(config["data"]["planted.json"]), json.loads(dashboard))
        self.assertEqual(labels(config)["grafana_dashboard"], "1")

    def test_each_alert_leads_to_its_section_where_the_runbook_has_an_address(self):
        def rules(**changes):
            made = of_kind(render(merged(self.defaults, {"prometheusRule": {"enabled": True} | changes})), "PrometheusRule")
            return [rule for made in made for group in made["spec"]["groups"] for rule in group["rules"]]

        plain = rules()
        self.assertTrue(plain)
        for base in ("https://example.com/dotmask", "https://example.com/dotmask/"):
            for rule, linked in zip(plain, rules(runbookBaseUrl=base), strict=True):
                with self.subTest(base, alert=rule.get("alert")):
                    if "alert" in rule:
                        url = f"https://example.com/dotmask/docs/RUNBOOK.md#{rule['alert'].lower()}"
                        self.assertEqual(linked["annotations"].pop("runbook_url"), url)
                    self.assertEqual(linked, rule)

    def test_the_migration_can_be_left_out(self):
        objects = render(merged(self.defaults, {"migration": {"enabled": False}}))
        self.assertEqual([made for made in objects if component(made) == "migration"], [])


if __name__ == "__main__":
    unittest.main()

"""Wrong values are refused, by the schema or by templates/checks.yaml, with words that help."""

import unittest

import helm_python as helm
from chart import VALUE_SETS, merged, render

SHA256 = "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"


def pool(**changes):
    return {"pools": {"vit-b": changes}}


def checkpoint(**changes):
    return pool(checkpoint=changes)


VOLUME = {"persistentVolumeClaim": {"claimName": "models"}}
SECRET_ENV = [{"name": "DATABASE_URL", "value": "postgres://u:p@h/d"}]

# What is changed in the smallest value set, and what the refusal must say.
REFUSED = {
    # Unknown values.
    "an unknown value": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "an unknown value of the dispatcher": ({"dispatcher": {"replicaCount": 2}}, "at '/dispatcher': additional properties 'replicaCount' not allowed"),
    "an unknown value of a pool": (pool(gpus=2), "at '/pools/vit-b': additional properties 'gpus' not allowed"),
    "an unknown value of what pools have in common": ({"poolDefaults": {"gpus": 2}}, "at '/poolDefaults': additional properties 'gpus' not allowed"),
    "an unknown field of a toleration": (pool(tolerations=[{"keys": "gpu"}]), "additional properties 'keys' not allowed"),
    "an unknown resource list": (pool(resources={"limit": {"cpu": 1}}), "additional properties 'limit' not allowed"),
    # Credentials.
    "a password of Postgres": ({"postgres": {"url": "postgres://u:p@h/d"}}, "at '/postgres': additional properties 'url' not allowed"),
    "a password of RabbitMQ": ({"rabbitmq": {"password": "p"}}, "at '/rabbitmq': additional properties 'password' not allowed"),
    "a secret access key": ({"s3": {"secretAccessKey": "k"}}, "at '/s3': additional properties 'secretAccessKey' not allowed"),
    "no Secret for Postgres": ({"postgres": {"existingSecret": ""}}, "at '/postgres/existingSecret'"),
    "a password in the store's URL": ({"s3": {"endpoint": "https://u:p@minio"}}, "at '/s3/endpoint'"),
    "a path in the store's URL": ({"s3": {"endpoint": "https://minio/scans"}}, "s3.endpoint https://minio/scans has a path"),
    "a credential in the dispatcher's environment": ({"dispatcher": {"extraEnv": SECRET_ENV}}, "dispatcher.extraEnv sets a credential: put it into a Secret and name that in postgres.existingSecret"),
    "a credential in a pool's environment": (pool(extraEnv=SECRET_ENV), "pools.vit-b.extraEnv sets a credential"),
    # Types, ranges, forms.
    "a number as text": ({"dispatcher": {"replicas": "2"}}, "at '/dispatcher/replicas': got string, want integer"),
    "no dispatcher": ({"dispatcher": {"replicas": 0}}, "at '/dispatcher/replicas'"),
    "too few connections": ({"dispatcher": {"postgresConnections": 3}}, "at '/dispatcher/postgresConnections'"),
    "a tag that is a number": ({"image": {"worker": {"tag": 1.2}}}, "at '/image/worker/tag': got number, want string"),
    "a tag in the repository": ({"image": {"worker": {"repository": "registry.example.com/dotmask/worker:1"}}}, "at '/image/worker/repository'"),
    "a digest that is none": ({"image": {"worker": {"digest": "latest"}}}, "at '/image/worker/digest'"),
    "a pull policy that is none": ({"image": {"worker": {"pullPolicy": "Sometimes"}}}, "at '/image/worker/pullPolicy'"),
    "a pool's name with capitals": ({"pools": {"ViT": {}}}, "'ViT' does not match pattern '^[a-z][a-z0-9-]{0,39}$'"),
    "a pool's name of 41 letters": ({"pools": {"a" * 41: {}}}, "does not match pattern '^[a-z][a-z0-9-]{0,39}$'"),
    "a further pool's name with a digit first": ({"dispatcher": {"extraPools": ["1st"]}}, "at '/dispatcher/extraPools/0'"),
    "a device that is none": (pool(device="gpu"), "at '/pools/vit-b/device'"),
    "CUDA without a GPU": (pool(gpuResource=""), "at '/pools/vit-b/gpuResource'"),
    "masks that go nowhere": (pool(masks="/mnt/masks"), "at '/pools/vit-b/masks'"),
    "masks in a bucket with capitals": (pool(masks="s3://Scans/masks"), "at '/pools/vit-b/masks'"),
    "a checkpoint by HTTP": (checkpoint(uri="https://models/sam.pth"), "at '/pools/vit-b/checkpoint/uri'"),
    "a checkpoint of another kind": (checkpoint(uri="s3://models/sam.onnx"), "at '/pools/vit-b/checkpoint/uri'"),
    "a hash that is too short": (checkpoint(sha256="abc"), "at '/pools/vit-b/checkpoint/sha256'"),
    "a hash in capitals": (checkpoint(sha256=SHA256.upper()), "at '/pools/vit-b/checkpoint/sha256'"),
    "a hostPath as cache": (checkpoint(cache={"hostPath": {"path": "/var"}}), "additional properties 'hostPath' not allowed"),
    "a hostPath as volume": (checkpoint(uri="", volume={"hostPath": {"path": "/var"}}, path="a.pth"), "additional properties 'hostPath' not allowed"),
    "two caches": (checkpoint(cache=VOLUME | {"emptyDir": {}}), "at '/pools/vit-b/checkpoint/cache': maxProperties"),
    "a cache of two kinds, one from the defaults": ({"poolDefaults": {"checkpoint": {"cache": {"emptyDir": {}}}}} | checkpoint(cache=VOLUME), "pools.vit-b.checkpoint.cache is of two kinds, emptyDir and persistentVolumeClaim"),
    "too many jobs at once": (pool(prefetch=65), "at '/pools/vit-b/prefetch'"),
    "a quantity that is none": (pool(resources={"limits": {"memory": "8 GB"}}), "at '/pools/vit-b/resources/limits/memory'"),
    "an environment variable that is a number": (pool(extraEnv=[{"name": "A", "value": 1}]), "got number, want string"),
    "a label that is a number": ({"podMonitor": {"labels": {"release": 1}}}, "at '/podMonitor/labels/release': got number, want string"),
    "an interval without a unit": ({"podMonitor": {"interval": "15"}}, "at '/podMonitor/interval'"),
    "a format of logs that is none": ({"log": {"format": "xml"}}, "at '/log/format'"),
    "a collector without a scheme": ({"otel": {"endpoint": "collector:4318"}}, "at '/otel/endpoint'"),
    "a sampler that is none": ({"otel": {"sampler": "jaeger_remote"}}, "at '/otel/sampler'"),
    "a share of jobs above 1": ({"otel": {"samplerArg": 5}}, "at '/otel/samplerArg'"),
    "a runbook's address without a scheme": ({"prometheusRule": {"runbookBaseUrl": "git.example.com"}}, "at '/prometheusRule/runbookBaseUrl'"),
    "an egress without a port": ({"networkPolicy": {"egress": {"s3": {"ports": []}}}}, "at '/networkPolicy/egress/s3/ports'"),
    "a peer that says nothing": ({"networkPolicy": {"apiFrom": [{}]}}, "at '/networkPolicy/apiFrom/0'"),
    "a path of the Ingress without a slash": ({"dispatcher": {"ingress": {"hosts": [{"host": "a", "paths": ["v1"]}]}}}, "at '/dispatcher/ingress/hosts/0/paths/0'"),
    # Values that contradict each other.
    "no image of the dispatcher": ({"image": {"dispatcher": {"repository": ""}}}, "image.dispatcher.repository is empty: say where your image of the dispatcher is"),
    "no image of the worker": ({"image": {"worker": {"repository": ""}}}, "image.worker.repository is empty, and so is pools.vit-b.image.repository: say where your image of the worker is"),
    "no masks": (pool(masks=""), "pools.vit-b.masks is empty: say where results go"),
    "no checkpoint": (checkpoint(uri="", sha256=""), "pools.vit-b.checkpoint has neither uri nor volume: say where SAM's weights are"),
    "a checkpoint without its hash": (checkpoint(sha256=""), "pools.vit-b.checkpoint.uri is given without sha256"),
    "two checkpoints": (checkpoint(volume=VOLUME), "pools.vit-b.checkpoint has uri and volume: give one"),
    "a path beside a URI": (checkpoint(path="a.pth"), "pools.vit-b.checkpoint.path belongs to a volume"),
    "a volume without a path": (checkpoint(uri="", volume=VOLUME), "pools.vit-b.checkpoint.volume is given without path"),
    "a heartbeat of more than half a lease": (pool(heartbeatSeconds=11), "pools.vit-b: heartbeatSeconds 11 is more than half of leaseSeconds 20"),
    "no time to give jobs back": (pool(drainSeconds=11), "pools.vit-b: terminationGracePeriodSeconds 15 is less than drainSeconds 11 and 5 more"),
    "more workers at least than at most": ({"keda": {"enabled": True}} | pool(autoscaling={"minReplicas": 11}), "pools.vit-b.autoscaling: minReplicas 11 is more than maxReplicas 10"),
    "more dispatchers at least than at most": ({"dispatcher": {"autoscaling": {"enabled": True, "minReplicas": 7}}}, "dispatcher.autoscaling: minReplicas 7 is more than maxReplicas 6"),
    "an Ingress for no host": ({"dispatcher": {"ingress": {"enabled": True}}}, "dispatcher.ingress is enabled without hosts"),
    "a name that is too long": ({"fullnameOverride": "a" * 60}, "longer than 63 characters: shorten the pool's name"),
}


class Refusals(unittest.TestCase):
    def refusal(self, values):
        with self.assertRaises(helm.HelmError) as caught:
            render(values)
        return str(caught.exception)

    def test_wrong_values_are_refused_and_named(self):
        for what, (changes, message) in REFUSED.items():
            with self.subTest(what):
                self.assertIn(message, self.refusal(merged(VALUE_SETS["defaults"], changes)))

    def test_an_installation_without_values_says_what_is_missing(self):
        self.assertIn("image.dispatcher.repository is empty", self.refusal({}))
        images = {"image": VALUE_SETS["defaults"]["image"]}
        self.assertIn("no pool: declare one in pools (with its workers) or in dispatcher.extraPools", self.refusal(images))

    def test_pools_whose_workers_run_elsewhere_are_enough(self):
        kinds = {made["kind"] for made in render({"image": {"dispatcher": {"repository": "dispatcher"}}, "dispatcher": {"extraPools": ["on-premises"]}})}
        self.assertNotIn("ScaledObject", kinds)
        self.assertIn("Deployment", kinds)

    def test_a_pool_may_have_all_of_its_image_to_itself(self):
        values = merged(VALUE_SETS["defaults"], {"image": {"worker": {"repository": ""}}} | pool(image={"repository": "worker-cpu"}))
        self.assertTrue(render(values))


if __name__ == "__main__":
    unittest.main()

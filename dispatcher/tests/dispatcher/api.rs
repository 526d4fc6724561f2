//! What the API answers.

use std::time::Duration;

use ledger::{ErrorClass, Finalised, JobFailure, JobResult, Mask};

use crate::support::{System, manifest, wait_for};

#[tokio::test]
async fn takes_a_batch_in_and_tells_how_its_jobs_fare() {
    let system = System::start().await;
    let dispatcher = &system.dispatcher;
    let submitted = dispatcher.post("/v1/batches?pool=gpu&name=first%20try", manifest(3)).await;
    assert_eq!(submitted.json["jobs"], 3);
    let id = submitted.id();

    // One succeeds, one fails for good, one waits.
    let ttl = Duration::from_mins(1);
    let job = system.ledger.claim("gpu", "worker-1", ttl).await.unwrap().unwrap();
    let mask = Mask { object: 1, iou: 0.9, best_step: 7, confidence: 0.75, warnings: vec!["look twice".into()] };
    let result = JobResult { artifacts: Vec::new(), masks: vec![mask], scores: Vec::new(), seconds: 1.5 };
    assert_eq!(system.ledger.finalise(&job.lease, &result).await.unwrap(), Finalised::Accepted);
    let succeeded = job.lease.job_id;
    let job = system.ledger.claim("gpu", "worker-1", ttl).await.unwrap().unwrap();
    let failure = JobFailure { class: ErrorClass::Permanent, message: "no such object".into() };
    assert_eq!(system.ledger.fail(&job.lease, &failure).await.unwrap(), Finalised::Accepted);

    let batch = dispatcher.get(&format!("/v1/batches/{id}")).await.json;
    assert_eq!((batch["name"].as_str(), batch["pool"].as_str()), (Some("first try"), Some("gpu")));
    let counts = &batch["counts"];
    assert_eq!((&counts["queued"], &counts["succeeded"], &counts["failed"]), (&1.into(), &1.into(), &1.into()), "{batch}");

    let first = dispatcher.get(&format!("/v1/batches/{id}/jobs?limit=2")).await.json;
    let lines: Vec<u64> = first["jobs"].as_array().unwrap().iter().map(|job| job["line"].as_u64().unwrap()).collect();
    assert_eq!((lines, first["next_after"].as_u64()), (vec![1, 2], Some(2)));
    let last = dispatcher.get(&format!("/v1/batches/{id}/jobs?limit=2&after=2")).await.json;
    assert_eq!((last["jobs"].as_array().unwrap().len(), &last["next_after"]), (1, &serde_json::Value::Null));

    let job = dispatcher.get(&format!("/v1/jobs/{succeeded}")).await.json;
    assert_eq!(job["state"], "succeeded", "{job}");
    let expected = serde_json::json!([{
        "id": null,
        "points": [[10.0, 20.0, 1.0], [30.0, 40.0, 0.0]],
        "mask": {"iou": 0.9, "best_step": 7, "confidence": 0.75, "warnings": ["look twice"]}
    }]);
    assert_eq!(job["objects"], expected);

    let pools = dispatcher.get("/v1/pools").await.json;
    assert_eq!((&pools["pools"][1]["name"], &pools["pools"][1]["queued"]), (&"gpu".into(), &1.into()), "{pools}");
    // The census comes by every few seconds; without a broker the batch's tokens stay where they are.
    let metrics = wait_for("the census", async || {
        let metrics = dispatcher.observe("/metrics").await.json;
        if metrics.as_str().unwrap().contains(r#"dotmask_outbox_tokens{pool="gpu"} 3"#) {
            Ok(metrics)
        } else {
            Err(metrics.to_string())
        }
    })
    .await;
    let expected = [
        r#"dotmask_dispatcher_submitted_jobs_total{pool="gpu"} 3"#,
        r#"dotmask_dispatcher_requests_total{method="GET",route="/v1/jobs/{id}",status="200"} 1"#,
    ];
    for line in expected {
        assert!(metrics.as_str().unwrap().contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn shows_several_objects_each_with_its_mask() {
    let system = System::start().await;
    let line = r#"{"image":"s3://scans/ct.nii.gz","slice":70,"window":[40,400],"id":"ct",
        "objects":[{"id":"spleen","points":[[1,2,1]]},{"points":[[3,4,1]]}]}"#;
    let batch = system.dispatcher.post("/v1/batches?pool=gpu", line.replace('\n', "")).await.id();
    let job = system.ledger.claim("gpu", "worker-1", Duration::from_mins(1)).await.unwrap().unwrap();
    let mask = |object, confidence| Mask { object, iou: 0.9, best_step: 7, confidence, warnings: Vec::new() };
    let masks = vec![mask(1, 0.75), mask(2, 0.5)];
    let result = JobResult { artifacts: Vec::new(), masks, scores: Vec::new(), seconds: 1.5 };
    assert_eq!(system.ledger.finalise(&job.lease, &result).await.unwrap(), Finalised::Accepted);

    let jobs = system.dispatcher.get(&format!("/v1/batches/{batch}/jobs")).await.json;
    let job = &jobs["jobs"][0];
    assert_eq!((&job["slice"], &job["window"], &job["user_id"]), (&70.into(), &serde_json::json!([40.0, 400.0]), &"ct".into()));
    assert_eq!((&job["objects"][0]["id"], &job["objects"][1]["id"]), (&"spleen".into(), &serde_json::Value::Null));
    assert_eq!((&job["objects"][0]["mask"]["confidence"], &job["objects"][1]["mask"]["confidence"]), (&0.75.into(), &0.5.into()));
    assert_eq!(job["evaluation"], serde_json::Value::Null);
}

#[tokio::test]
async fn tells_an_autoscaler_what_is_open_in_a_pool() {
    let system = System::start().await;
    let dispatcher = &system.dispatcher;
    dispatcher.post("/v1/batches?pool=gpu", manifest(3)).await.id();
    for worker in ["one", "two"] {
        system.ledger.claim("gpu", worker, Duration::from_mins(1)).await.unwrap().expect("a job");
    }
    let expected = serde_json::json!({
        "name": "gpu", "queued": 1, "running": 2, "busy_workers": 2, "job_seconds": 30.0, "open_work_seconds": 90,
    });
    wait_for("the census", async || match dispatcher.get("/v1/pools/gpu").await.json {
        pool if pool == expected => Ok(()),
        pool => Err(pool.to_string()),
    })
    .await;
    assert_eq!(dispatcher.get("/v1/pools/cpu").await.json["open_work_seconds"], 0);
    assert_eq!(dispatcher.get("/v1/pools/none").await.status, 404);
}

#[tokio::test]
async fn answers_every_error_in_json() {
    let system = System::start().await;
    let dispatcher = &system.dispatcher;
    let nobody = "0199b1f0-0000-7000-8000-000000000000";
    let batch = dispatcher.post("/v1/batches?pool=gpu", manifest(1)).await.id();
    let cases = [
        ("/v2/batches".to_owned(), 404, "/openapi.json lists"),
        ("/v1/batches".into(), 405, "GET"),
        (format!("/v1/batches/{nobody}"), 404, nobody),
        (format!("/v1/batches/{nobody}/jobs"), 404, nobody),
        (format!("/v1/jobs/{nobody}"), 404, nobody),
        ("/v1/batches/42".into(), 400, "42"),
        (format!("/v1/batches/{nobody}/scores"), 404, nobody),
        (format!("/v1/batches/{batch}/scores?limit=201"), 400, "expected 1 to 200"),
        (format!("/v1/batches/{batch}/jobs?limit=many"), 400, "limit"),
        (format!("/v1/batches/{batch}/jobs?limit=1001"), 400, "expected 1 to 1000"),
        (format!("/v1/batches/{batch}/jobs?afetr=5"), 400, "afetr"),
        (format!("/v1/batches/{nobody}/jobs?after=18446744073709551615"), 404, nobody),
    ];
    for (path, status, part) in cases {
        let answer = dispatcher.get(&path).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.error().contains(part), "{path}: {answer:?}");
    }
    let cases = [
        ("/v1/batches?pool=tpu", 400, "pool \"tpu\" is unknown, expected one of: cpu, gpu"),
        ("/v1/batches", 400, "which pool? there are several"),
        ("/v1/batches?pool=gpu&name=", 400, "name"),
        ("/v1/batches?pool=gpu&priority=101", 400, "expected -100 to 100"),
        ("/v1/pools", 405, "POST"),
    ];
    for (path, status, part) in cases {
        let answer = dispatcher.post(path, manifest(1)).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.error().contains(part), "{path}: {answer:?}");
    }
    assert_eq!(system.queued().await, 1, "the batch of the beginning");
}

#[tokio::test]
async fn describes_every_route_in_its_openapi_document() {
    let system = System::start().await;
    let document = system.dispatcher.get("/openapi.json").await.json;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{document}");
    let routes: Vec<(&str, Vec<&str>)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| (path.as_str(), item.as_object().unwrap().keys().map(String::as_str).collect()))
        .collect();
    let expected = [
        ("/v1/batches", vec!["post"]),
        ("/v1/batches/{id}", vec!["get"]),
        ("/v1/batches/{id}/cancel", vec!["post"]),
        ("/v1/batches/{id}/jobs", vec!["get"]),
        ("/v1/batches/{id}/retry", vec!["post"]),
        ("/v1/batches/{id}/scores", vec!["get"]),
        ("/v1/jobs/{id}", vec!["get"]),
        ("/v1/jobs/{id}/cancel", vec!["post"]),
        ("/v1/jobs/{id}/retry", vec!["post"]),
        ("/v1/pools", vec!["get"]),
        ("/v1/pools/{name}", vec!["get"]),
        ("/v1/tokens", vec!["get", "post"]),
        ("/v1/tokens/{id}", vec!["delete"]),
    ];
    assert_eq!(routes, expected);

    let schemas = &document["components"]["schemas"];
    let of_objects = &schemas["Job"]["properties"]["objects"]["items"]["$ref"];
    assert_eq!(of_objects, "#/components/schemas/JobObject", "{}", schemas["Job"]);
    assert!(schemas["Score"]["properties"]["dice"].is_object(), "{schemas}");
    // Every schema that is named is there.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is missing");
    }
}

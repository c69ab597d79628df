//! Volumes.

use super::*;

const CONTAINERS: &str = "/api/v1/containers";
const VOLUMES: &str = "/api/v1/volumes";

async fn make(rest: &Rest, name: &str, volumes: &[&str], node: Option<&str>) -> (u16, Value) {
    let body = json!({"image": "counter", "name": name, "volumes": volumes, "node": node});
    rest.post(CONTAINERS, body).await
}

#[tokio::test]
async fn a_volume_is_made_with_its_container_and_is_that_ones() {
    let rest = rest().await;
    let volumes = ["data:/var/lib//db/", "logs:/log"];
    let (status, web) = make(&rest, "web", &volumes, Some("edge-a")).await;
    assert_eq!(status, 202, "{web}");
    assert_eq!(web["volumes"], json!(["data:/var/lib/db", "logs:/log"]));
    let (_, all) = rest.get(VOLUMES).await;
    let told = |volume: &Value| (volume["name"].clone(), volume["container"].clone());
    let told: Vec<_> = all.as_array().unwrap().iter().map(told).collect();
    assert_eq!(told, [(json!("data"), json!("web")), (json!("logs"), json!("web"))]);
    let (_, data) = rest.get(&format!("{VOLUMES}/data")).await;
    assert_eq!(data["node"], "edge-a");

    let (status, answer) = rest.ask(Method::DELETE, &format!("{VOLUMES}/data"), None).await;
    assert_eq!((status, &answer["code"]), (409, &json!("volume-in-use")));
    assert!(answer["message"].as_str().unwrap().contains("web"));
    let (status, answer) = rest.ask(Method::DELETE, &format!("{VOLUMES}/none"), None).await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown-volume")));
}

#[tokio::test]
async fn what_a_container_cannot_have_of_volumes_is_said() {
    let rest = rest().await;
    assert_eq!(make(&rest, "web", &["data:/data"], Some("edge-a")).await.0, 202);
    for (volumes, status, code, word) in [
        (&["/srv:/srv"][..], 400, "invalid-volume", "`/srv` is a directory of one node"),
        (&["data"], 400, "invalid-volume", "NAME:/path"),
        (&["a:relative"], 400, "invalid-volume", "relative"),
        (&["a:/a", "a:/b"], 400, "volume-twice", "a:/b"),
        (&["a:/a", "b:/a/"], 400, "volume-twice", "b:/a"),
        (&["data:/data"], 409, "volume-in-use", "web"),
        (&["a:/a", "data:/data"], 409, "volume-in-use", "web"),
    ] {
        let (found, answer) = make(&rest, "other", volumes, None).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{volumes:?}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(word), "{answer}");
        assert!(!answer["remedy"].as_str().unwrap().is_empty());
    }
    let names = rest.get(VOLUMES).await.1;
    assert_eq!(names.as_array().unwrap().len(), 1, "what was refused made none: {names}");
}

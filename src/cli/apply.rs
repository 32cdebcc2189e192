//! `defib apply -f`.

use anyhow::Context;
use hyper::Method;
use probe_core::model::pod::PodSpec;
use serde_json::{Value, json};

use super::args::ApplyArgs;
use super::manifests;
use super::output::{self, Refusals};
use crate::client::{self, Client, ClientError, Patience};

/// Creates the pods of the manifests, or changes them. The manifests are checked here, so that nothing is
/// done when one of them is wrong.
///
/// # Errors
/// A manifest is wrong, there is no agent, or it refuses.
pub fn run(args: &ApplyArgs) -> anyhow::Result<u8> {
    let pods = manifests::load(&args.files, &args.manifest, manifests::warn)?;
    let placed = manifests::placed(&pods, &args.client.namespace)?;
    let client = output::client(&args.client)?;
    client::block_on(async {
        let mut refusals = Refusals::default();
        for (pod, namespace) in placed {
            let body = body(pod, namespace)?;
            if let Some(word) = refusals.take(apply(&client, pod, namespace, &body).await)? {
                output::write(format!("pod/{} {word}\n", pod.name).as_bytes())?;
            }
        }
        Ok(refusals.exit_code())
    })
}

/// `created`, `configured` or `unchanged`.
async fn apply(
    client: &Client,
    pod: &PodSpec,
    namespace: &str,
    body: &Value,
) -> Result<&'static str, ClientError> {
    let query = client::query(&[("baseDir", Some(client::path_text(&pod.base_dir)))]);
    let pods = client::namespaced(namespace, "pods");
    let path = format!("{pods}/{}", client::escaped(&pod.name));
    let existing = match client.get(&path).await {
        Ok(existing) => existing,
        Err(error) if error.code() == Some(404) => {
            client.send(Method::POST, &format!("{pods}{query}"), Some(body), Patience::Usual).await?;
            return Ok("created");
        }
        Err(error) => return Err(error),
    };
    let answer = client.send(Method::PUT, &format!("{path}{query}"), Some(body), Patience::Usual).await?;
    Ok(if manifest_of(&existing) == manifest_of(&answer) { "unchanged" } else { "configured" })
}

/// What a manifest says of a pod, out of what the API shows.
fn manifest_of(pod: &Value) -> [&Value; 3] {
    [&pod["metadata"]["labels"], &pod["metadata"]["annotations"], &pod["spec"]]
}

fn body(pod: &PodSpec, namespace: &str) -> anyhow::Result<Value> {
    let mut body: Value =
        serde_json::from_str(&pod.manifest_json).with_context(|| format!("pod {}", pod.name))?;
    body["apiVersion"] = json!("v1");
    body["kind"] = json!("Pod");
    body["metadata"]["namespace"] = json!(namespace);
    // The uid that was made here at load is not the pod's: the agent gives it one.
    if let Some(metadata) = body["metadata"].as_object_mut() {
        metadata.remove("uid");
    }
    Ok(body)
}

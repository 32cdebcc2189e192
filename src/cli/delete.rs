//! `defib delete pod`.

use hyper::Method;
use serde_json::{Value, json};

use super::args::DeleteArgs;
use super::output::{self, Refusals};
use super::resource::{UsageError, Wanted};
use crate::client::{self, Client, ClientError, Patience};

/// Deletes the pods and, unless told otherwise, waits until they are gone.
///
/// # Errors
/// No agent, or it refuses.
pub fn run(args: &DeleteArgs) -> anyhow::Result<u8> {
    let names = Wanted::pods(&args.words)?;
    if names.is_empty() {
        let text = "error: resource(s) were provided, but no name was specified";
        return Err(UsageError(text.to_owned()).into());
    }
    let client = output::client(&args.client)?;
    let options = args.grace_period.map(|seconds| json!({"gracePeriodSeconds": seconds}));
    client::block_on(async {
        let mut refusals = Refusals::default();
        let mut deleted = Vec::new();
        for name in &names {
            let path = pod_path(&args.client.namespace, name);
            let answer = client.send(Method::DELETE, &path, options.as_ref(), Patience::Usual).await;
            if let Some(pod) = refusals.take(answer)? {
                output::write(format!("pod \"{name}\" deleted\n").as_bytes())?;
                deleted.push(pod);
            }
        }
        if args.wait {
            for pod in &deleted {
                until_gone(&client, pod).await?;
            }
        }
        Ok(refusals.exit_code())
    })
}

/// Waits until the pod with this uid is gone. `pod` is the answer to its deletion.
async fn until_gone(client: &Client, pod: &Value) -> Result<(), ClientError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &pod["metadata"];
    let (namespace, name, uid) = (text(&meta["namespace"]), text(&meta["name"]), text(&meta["uid"]));
    let mut version = text(&meta["resourceVersion"]);
    loop {
        let query = client::query(&[
            ("watch", Some("true".to_owned())),
            ("resourceVersion", Some(version)),
            ("fieldSelector", Some(format!("metadata.name={name}"))),
        ]);
        let mut lines = client.lines(&client::namespaced(&namespace, &format!("pods{query}"))).await?;
        while let Some(line) = lines.next().await? {
            match line["type"].as_str().unwrap_or_default() {
                "DELETED" if line["object"]["metadata"]["uid"] == *uid => return Ok(()),
                "ERROR" => break,
                _ => {}
            }
        }
        // The watch ended or fell behind: look, and watch from there.
        match client.get(&pod_path(&namespace, &name)).await {
            Ok(now) if now["metadata"]["uid"] == *uid => version = text(&now["metadata"]["resourceVersion"]),
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some(404) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn pod_path(namespace: &str, name: &str) -> String {
    client::namespaced(namespace, &format!("pods/{}", client::escaped(name)))
}

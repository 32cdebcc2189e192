//! `defib describe pod`.

use anyhow::Context;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::Value;

use super::args::DescribeArgs;
use super::output::{self, Refusals};
use super::print;
use super::resource::Wanted;
use crate::client::{self, Client};

/// Describes the pods that are named, or all of the namespace.
///
/// # Errors
/// No agent, or it refuses.
pub fn run(args: &DescribeArgs) -> anyhow::Result<u8> {
    let names = Wanted::pods(&args.words)?;
    let namespace = &args.client.namespace;
    let client = output::client(&args.client)?;
    client::block_on(async {
        let mut refusals = Refusals::default();
        let mut pods = Vec::new();
        if names.is_empty() {
            let list = client.get(&client::namespaced(namespace, "pods")).await?;
            pods.extend(list["items"].as_array().cloned().unwrap_or_default());
            if pods.is_empty() {
                eprintln!("No resources found in {namespace} namespace.");
            }
        }
        for name in &names {
            let path = client::namespaced(namespace, &format!("pods/{}", client::escaped(name)));
            pods.extend(refusals.take(client.get(&path).await)?);
        }
        for (at, pod) in pods.into_iter().enumerate() {
            let separator = if at > 0 { "\n\n" } else { "" };
            let text = describe(&client, namespace, pod).await?;
            output::write(format!("{separator}{text}").as_bytes())?;
        }
        Ok(refusals.exit_code())
    })
}

async fn describe(client: &Client, namespace: &str, pod: Value) -> anyhow::Result<String> {
    let field = |name: &str| pod["metadata"][name].as_str().unwrap_or_default();
    let selector = format!(
        "involvedObject.name={},involvedObject.namespace={},involvedObject.uid={}",
        field("name"),
        field("namespace"),
        field("uid")
    );
    let query = client::query(&[("fieldSelector", Some(selector))]);
    let mut list = client.get(&client::namespaced(namespace, &format!("events{query}"))).await?;
    let events: Vec<Event> =
        serde_json::from_value(list["items"].take()).context("events that cannot be read")?;
    let pod: Pod = serde_json::from_value(pod).context("a pod that cannot be read")?;
    Ok(print::describe::pod(&pod, &events, output::now()))
}

//! `defib logs`.

use serde_json::Value;

use super::args::LogsArgs;
use super::{exit, output, resource};
use crate::client::{self, Client};

/// kubectl's annotation for the container that commands are about when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Copies the log to standard output.
///
/// # Errors
/// No agent, or it has no such log.
pub fn run(args: &LogsArgs) -> anyhow::Result<u8> {
    let pod = resource::pod_name(&args.pod)?;
    let client = output::client(&args.client)?;
    client::block_on(copy(&client, args, pod))
}

async fn copy(client: &Client, args: &LogsArgs, pod: &str) -> anyhow::Result<u8> {
    let path = client::namespaced(&args.client.namespace, &format!("pods/{}", client::escaped(pod)));
    let container = match args.container.as_ref().or(args.container_name.as_ref()) {
        Some(name) => Some(name.clone()),
        None => default_container(&client.get(&path).await?),
    };
    let when = |set: bool| set.then(|| "true".to_owned());
    let query = client::query(&[
        ("container", container),
        ("previous", when(args.previous)),
        ("follow", when(args.follow)),
        ("tailLines", u64::try_from(args.tail).ok().map(|lines| lines.to_string())),
        ("timestamps", when(args.timestamps)),
        ("sinceSeconds", args.since.clone()),
    ]);
    let mut stream = client.stream(&format!("{path}/log{query}")).await?;
    while let Some(bytes) = stream.next().await? {
        output::write(&bytes)?;
    }
    Ok(exit::OK)
}

/// Of a pod with several containers the one that its annotation names, else the first; standard error says
/// which, in kubectl's words. None leaves the choice to the agent.
fn default_container(pod: &Value) -> Option<String> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
    };
    let (regular, init) = (names("containers"), names("initContainers"));
    if regular.len() + init.len() < 2 {
        return None;
    }
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    let chosen = annotated.filter(|name| regular.contains(name)).or(regular.first().copied())?;
    let all =
        regular.iter().map(|name| (*name).to_owned()).chain(init.iter().map(|name| format!("{name} (init)")));
    eprintln!("Defaulted container \"{chosen}\" out of: {}", all.collect::<Vec<_>>().join(", "));
    Some(chosen.to_owned())
}

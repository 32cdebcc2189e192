//! `defib delete`: pods by name, by manifest, or all of a namespace.

use std::collections::HashSet;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::args::{DeleteArgs, ManifestArgs};
use super::manifests;
use super::output::{self, Refusals};
use super::resource::{UsageError, Wanted};
use crate::client::{self, Client, ClientError, LineStream, Patience};

/// Deletes the pods and, unless told otherwise, waits until they are gone.
///
/// # Errors
/// No agent, or it refuses; a manifest is wrong.
pub fn run(args: &DeleteArgs) -> anyhow::Result<u8> {
    let grace = Grace::of(args)?;
    let wanted = wanted(args)?;
    let client = output::client(&args.client)?;
    if grace == Grace::None {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    let options = grace.seconds().map(|seconds| json!({"gracePeriodSeconds": seconds}));
    client::block_on(async {
        let mut refusals = Refusals::default();
        let mut deleted = HashSet::new();
        let is_all = matches!(wanted, Wanting::All);
        let named = match wanted {
            Wanting::Named(named) => named,
            Wanting::All => all_of(&client, &args.client.namespace, args.selector.clone()).await?,
        };
        if named.is_empty() {
            output::write(b"No resources found\n")?;
        }
        let ends = match args.wait && !named.is_empty() {
            true => Some(Ends::watch(&client, &named).await?),
            false => None,
        };
        for (namespace, name) in &named {
            let path = pod_path(namespace, name);
            let answer = client.send(Method::DELETE, &path, options.as_ref(), Patience::Usual).await;
            // With --all or -l one that has gone meanwhile is as wanted.
            if is_all && answer.as_ref().is_err_and(|error| error.code() == Some(404)) {
                continue;
            }
            if let Some(pod) = refusals.take(answer)? {
                output::write(format!("pod \"{name}\" {}\n", grace.word()).as_bytes())?;
                deleted.insert(text(&pod["metadata"]["uid"]));
            }
        }
        if let Some(ends) = ends {
            ends.wait(deleted).await?;
        }
        Ok(refusals.exit_code())
    })
}

/// What the containers are given, by kubectl's rules (kubectl, pkg/cmd/delete).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Grace {
    OfThePod,
    Seconds(u32),
    /// Killed at once.
    None,
}

impl Grace {
    fn of(args: &DeleteArgs) -> Result<Grace, UsageError> {
        let seconds = match (args.now, args.grace_period) {
            (true, Some(_)) => {
                return Err(usage("--now and --grace-period cannot be specified together"));
            }
            (true, None) => Some(1),
            (false, seconds) => seconds,
        };
        match (args.force, seconds) {
            (true, Some(1..)) => {
                Err(usage("--force and --grace-period greater than 0 cannot be specified together"))
            }
            (true, None | Some(0)) => Ok(Grace::None),
            // Nobody loses data by a zero that was typed for "soon".
            (false, Some(0)) => Ok(Grace::Seconds(1)),
            (false, Some(seconds)) => Ok(Grace::Seconds(seconds)),
            (false, None) => Ok(Grace::OfThePod),
        }
    }

    fn seconds(self) -> Option<u32> {
        match self {
            Grace::OfThePod => None,
            Grace::Seconds(seconds) => Some(seconds),
            Grace::None => Some(0),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Grace::OfThePod | Grace::Seconds(_) => "deleted",
            Grace::None => "force deleted",
        }
    }
}

/// Which pods.
enum Wanting {
    /// By namespace and name.
    Named(Vec<(String, String)>),
    /// All of the namespace that the selector selects, if there is one.
    All,
}

/// Files, names or all; kubectl's words where they do not go together.
fn wanted(args: &DeleteArgs) -> anyhow::Result<Wanting> {
    let namespace = &args.client.namespace;
    let is_all = args.all || args.selector.is_some();
    if args.all && args.selector.is_some() {
        return Err(usage("cannot set --all and --selector at the same time").into());
    }
    if !args.files.is_empty() {
        if !args.words.is_empty() || is_all {
            let text = "when paths, URLs, or stdin is provided as resource input, you may not specify resource arguments as well";
            return Err(usage(text).into());
        }
        // What of a manifest has no effect does not matter any more.
        let manifest =
            ManifestArgs { strict: false, default_initial_delay: Duration::ZERO, min_probe_period_ms: 1 };
        let pods = manifests::load(&args.files, &manifest, |_field| ())?;
        let placed = manifests::placed(&pods, namespace)?;
        let named = placed.into_iter().map(|(pod, namespace)| (namespace.to_owned(), pod.name.to_string()));
        return Ok(Wanting::Named(named.collect()));
    }
    if args.words.is_empty() {
        return Err(usage("You must provide one or more resources by argument or filename").into());
    }
    let names = Wanted::pods(&args.words)?;
    match (names.is_empty(), is_all) {
        (true, true) => Ok(Wanting::All),
        (false, true) => Err(usage("name cannot be provided when a selector is specified").into()),
        (true, false) => Err(usage("resource(s) were provided, but no name was specified").into()),
        (false, false) => {
            Ok(Wanting::Named(names.into_iter().map(|name| (namespace.clone(), name)).collect()))
        }
    }
}

fn usage(text: &str) -> UsageError {
    UsageError(format!("error: {text}"))
}

async fn all_of(
    client: &Client,
    namespace: &str,
    selector: Option<String>,
) -> Result<Vec<(String, String)>, ClientError> {
    let query = client::query(&[("labelSelector", selector)]);
    let list = client.get(&client::namespaced(namespace, &format!("pods{query}"))).await?;
    let names =
        list["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(|name| (namespace.to_owned(), name.to_owned())).collect())
}

/// A watch over the ends of pods. It begins before anything is deleted: an agent without pods ends itself, and
/// then nobody is there to be asked.
struct Ends<'a> {
    client: &'a Client,
    /// All that are waited for have this name, if they have one in common.
    selector: Option<String>,
    lines: LineStream,
}

impl Ends<'_> {
    async fn watch<'a>(client: &'a Client, named: &[(String, String)]) -> Result<Ends<'a>, ClientError> {
        let selector = match named {
            [(_, name)] => Some(format!("metadata.name={name}")),
            _ => None,
        };
        let lines = client.lines(&pods_path(&[WATCH, ("fieldSelector", selector.clone())])).await?;
        Ok(Ends { client, selector, lines })
    }

    /// Returns when no pod of these uids is left.
    async fn wait(mut self, mut uids: HashSet<String>) -> Result<(), ClientError> {
        while !uids.is_empty() {
            let line = self.lines.next().await?;
            let kind = line.as_ref().and_then(|line| line["type"].as_str());
            match (&line, kind) {
                (Some(line), Some("DELETED")) => {
                    uids.remove(&text(&line["object"]["metadata"]["uid"]));
                }
                // It fell behind.
                (Some(_), Some("ERROR")) => uids = self.look(uids).await?,
                (Some(_), _) => {}
                // Closed in order. An agent that has stopped has ended all its pods.
                (None, _) => match self.look(uids).await {
                    Err(error) if error.is_unreachable() => return Ok(()),
                    left => uids = left?,
                },
            }
        }
        Ok(())
    }

    /// Which of them are there now; the watch goes on from there.
    async fn look(&mut self, mut uids: HashSet<String>) -> Result<HashSet<String>, ClientError> {
        let selector = ("fieldSelector", self.selector.clone());
        let list = self.client.get(&pods_path(std::slice::from_ref(&selector))).await?;
        let there: HashSet<String> =
            list["items"].as_array().into_iter().flatten().map(|pod| text(&pod["metadata"]["uid"])).collect();
        uids.retain(|uid| there.contains(uid));
        let version = ("resourceVersion", Some(text(&list["metadata"]["resourceVersion"])));
        self.lines = self.client.lines(&pods_path(&[WATCH, version, selector])).await?;
        Ok(uids)
    }
}

const WATCH: (&str, Option<String>) = ("watch", Some(String::new()));

/// Pods of all namespaces.
fn pods_path(pairs: &[(&str, Option<String>)]) -> String {
    format!("/api/v1/pods{}", client::query(pairs))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn pod_path(namespace: &str, name: &str) -> String {
    client::namespaced(namespace, &format!("pods/{}", client::escaped(name)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Verb};
    use super::*;

    #[test]
    fn grace_periods() {
        let check = |options: &str, expected: Result<Grace, &str>| {
            let words = format!("defib delete pod x {options}");
            let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
            let Verb::Delete(args) = cli.verb else { panic!("{words}") };
            assert_eq!(Grace::of(&args), expected.map_err(usage), "{words}");
        };
        check("", Ok(Grace::OfThePod));
        check("--grace-period 7", Ok(Grace::Seconds(7)));
        check("--grace-period 0", Ok(Grace::Seconds(1)));
        check("--now", Ok(Grace::Seconds(1)));
        check("--force", Ok(Grace::None));
        check("--force --grace-period=0", Ok(Grace::None));
        check("--now --grace-period 1", Err("--now and --grace-period cannot be specified together"));
        let clash = "--force and --grace-period greater than 0 cannot be specified together";
        check("--force --grace-period 1", Err(clash));
        check("--force --now", Err(clash));
    }
}

//! `defib get pods|events`, and `get --raw PATH`.

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};

use super::args::{GetArgs, OutputForm};
use super::output::{self, Refusals};
use super::print::pods::{Columns, Shown};
use super::print::table::Table;
use super::print::{events, pods};
use super::resource::{self, Kind, UsageError, Wanted};
use crate::client::{self, Client, Status};

/// Lists, and with `--watch` goes on.
///
/// # Errors
/// No agent, or it refuses.
pub fn run(args: &GetArgs) -> anyhow::Result<u8> {
    if let Some(path) = &args.raw {
        return raw(args, path);
    }
    let wanted = Wanted::parse(&args.words)?;
    if args.all_namespaces && !wanted.names.is_empty() {
        let text = "error: a resource cannot be retrieved by name across all namespaces";
        return Err(UsageError(text.to_owned()).into());
    }
    if args.watch && wanted.names.len() > 1 {
        let text = "error: you may only specify a single resource of type when watching";
        return Err(UsageError(text.to_owned()).into());
    }
    let selected = Selected::of(args, &wanted)?;
    let client = output::client(&args.client)?;
    let mut printer = Printer::new(args, wanted.kind);
    client::block_on(async {
        if args.watch {
            watch(&client, args, &wanted, &selected, &mut printer).await
        } else {
            list(&client, args, &wanted, &selected, &mut printer).await
        }
    })
}

/// As `kubectl get --raw`.
fn raw(args: &GetArgs, path: &str) -> anyhow::Result<u8> {
    let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_path {
        let text = format!("error: --raw takes a path such as /metrics/probes, not {path:?}");
        return Err(UsageError(text).into());
    }
    let client = output::client(&args.client)?;
    client::block_on(async {
        let mut answer = client.stream(path).await?;
        while let Some(bytes) = answer.next().await? {
            output::write(&bytes)?;
        }
        Ok(super::exit::OK)
    })
}

/// Which objects of a collection.
struct Selected {
    fields: Option<String>,
    labels: Option<String>,
}

impl Selected {
    fn of(args: &GetArgs, wanted: &Wanted) -> Result<Selected, UsageError> {
        let usage = |text: &str| Err(UsageError(format!("error: {text}")));
        let labels = args.selector.clone();
        if !wanted.names.is_empty() && (labels.is_some() || args.for_object.is_some()) {
            return usage("name cannot be provided when a selector is specified");
        }
        let fields = match (&args.for_object, wanted.kind) {
            (None, _) => wanted.names.first().map(|name| format!("metadata.name={name}")),
            (Some(_), Kind::Pods) => return usage("--for selects events: `defib get events --for pod/NAME`"),
            (Some(object), Kind::Events) => {
                let (kind, name) = resource::owner(object)?;
                Some(format!("involvedObject.kind={},involvedObject.name={name}", kind.name()))
            }
        };
        Ok(Selected { fields, labels })
    }

    /// `pairs` and what selects.
    fn query(&self, pairs: &[(&str, Option<String>)]) -> String {
        let own = [("fieldSelector", self.fields.clone()), ("labelSelector", self.labels.clone())];
        client::query(&[pairs, &own].concat())
    }
}

async fn list(
    client: &Client,
    args: &GetArgs,
    wanted: &Wanted,
    selected: &Selected,
    printer: &mut Printer,
) -> anyhow::Result<u8> {
    if wanted.names.is_empty() {
        let path = format!("{}{}", collection(args, wanted.kind), selected.query(&[]));
        let answer = client.get(&path).await?;
        let items = items(&answer);
        if items.is_empty() && printer.is_table() {
            eprintln!("{}", nothing(args));
        } else {
            printer.list(items)?;
        }
        return Ok(super::exit::OK);
    }
    let mut refusals = Refusals::default();
    let mut found = Vec::new();
    for name in &wanted.names {
        let path = format!("{}/{}", collection(args, wanted.kind), client::escaped(name));
        found.extend(refusals.take(client.get(&path).await)?);
    }
    match (found.len(), wanted.names.len()) {
        (0, _) => {}
        (1, 1) => printer.one(found)?,
        _ => printer.list(found)?,
    }
    Ok(refusals.exit_code())
}

/// Prints what there is and every change, until the agent ends. A watch that fell behind starts over, and so does
/// one whose time was over.
async fn watch(
    client: &Client,
    args: &GetArgs,
    wanted: &Wanted,
    selected: &Selected,
    printer: &mut Printer,
) -> anyhow::Result<u8> {
    let path = collection(args, wanted.kind);
    loop {
        let listed = client.get(&format!("{path}{}", selected.query(&[]))).await?;
        let items = items(&listed);
        if let (Some(name), true) = (wanted.names.first(), items.is_empty()) {
            // A watch for a name that is not there says so, as a list does.
            client.get(&format!("{path}/{}", client::escaped(name))).await?;
        }
        printer.each(items)?;
        let mut version = listed["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let mut so_far = Watched::NotYet;
        'watch: loop {
            let query = selected.query(&[
                ("watch", Some("true".to_owned())),
                ("allowWatchBookmarks", Some("true".to_owned())),
                ("resourceVersion", Some(version.clone())),
            ]);
            let mut lines = match client.lines(&format!("{path}{query}")).await {
                // The agent closed the last watch in order and is gone now: it has stopped, and that is all.
                Err(error) if error.is_unreachable() && so_far == Watched::ToTheEnd => {
                    return Ok(super::exit::OK);
                }
                lines => lines?,
            };
            while let Some(mut line) = lines.next().await? {
                let object = line["object"].take();
                match line["type"].as_str().unwrap_or_default() {
                    "ERROR" => {
                        let status = Status::of(&object).context("a watch ended without saying why")?;
                        if status.code == 410 {
                            break 'watch;
                        }
                        anyhow::bail!("{status}");
                    }
                    kind => {
                        if let Some(newer) = object["metadata"]["resourceVersion"].as_str() {
                            version = newer.to_owned();
                        }
                        if kind != "BOOKMARK" {
                            printer.each(vec![object])?;
                        }
                    }
                }
            }
            so_far = Watched::ToTheEnd;
        }
    }
}

/// Whether a watch was closed in order; one that breaks off is an error.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Watched {
    NotYet,
    ToTheEnd,
}

fn collection(args: &GetArgs, kind: Kind) -> String {
    if args.all_namespaces {
        format!("/api/v1/{}", kind.plural())
    } else {
        client::namespaced(&args.client.namespace, kind.plural())
    }
}

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

fn nothing(args: &GetArgs) -> String {
    if args.all_namespaces {
        "No resources found".to_owned()
    } else {
        format!("No resources found in {} namespace.", args.client.namespace)
    }
}

/// Prints objects in the form that was asked for.
struct Printer {
    kind: Kind,
    form: Option<OutputForm>,
    columns: Columns,
    /// Not yet printed.
    head: Option<Vec<String>>,
    table: Table,
}

impl Printer {
    fn new(args: &GetArgs, kind: Kind) -> Printer {
        let columns = Columns {
            namespace: Shown::when(args.all_namespaces),
            wide: Shown::when(args.output == Some(OutputForm::Wide)),
        };
        let head = match kind {
            Kind::Pods => pods::head(columns),
            Kind::Events => events::head(columns),
        };
        let head = (!args.no_headers).then_some(head);
        Printer { kind, form: args.output, columns, head, table: Table::new() }
    }

    fn is_table(&self) -> bool {
        matches!(self.form, None | Some(OutputForm::Wide))
    }

    /// Several objects: as a `List` where the form has a frame.
    fn list(&mut self, items: Vec<Value>) -> anyhow::Result<()> {
        if !matches!(self.form, Some(OutputForm::Json | OutputForm::Yaml)) {
            return self.each(items);
        }
        let metadata = json!({"resourceVersion": ""});
        self.each(vec![json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items})])
    }

    /// One object that was asked for by its name.
    fn one(&mut self, object: Vec<Value>) -> anyhow::Result<()> {
        self.each(object)
    }

    /// Each object by itself.
    fn each(&mut self, items: Vec<Value>) -> anyhow::Result<()> {
        let mut text = String::new();
        match self.form {
            None | Some(OutputForm::Wide) => text = self.rows(items)?,
            Some(OutputForm::Json) => {
                for item in &items {
                    text.push_str(&output::json(item)?);
                }
            }
            Some(OutputForm::Yaml) => {
                for (at, item) in items.iter().enumerate() {
                    text.push_str(if at > 0 { "---\n" } else { "" });
                    text.push_str(&output::yaml(item)?);
                }
            }
            Some(OutputForm::Name) => {
                for item in &items {
                    let name = item["metadata"]["name"].as_str().unwrap_or_default();
                    text.push_str(&format!("{}/{name}\n", self.kind.singular()));
                }
            }
        }
        output::write(text.as_bytes())
    }

    fn rows(&mut self, items: Vec<Value>) -> anyhow::Result<String> {
        if items.is_empty() {
            return Ok(String::new());
        }
        let now: Timestamp = output::now();
        let mut rows: Vec<Vec<String>> = self.head.take().into_iter().collect();
        match self.kind {
            Kind::Pods => {
                for item in items {
                    let pod: Pod = serde_json::from_value(item).context("a pod that cannot be read")?;
                    rows.push(pods::row(&pod, self.columns, now));
                }
            }
            Kind::Events => {
                let mut all: Vec<Event> = Vec::with_capacity(items.len());
                for item in items {
                    all.push(serde_json::from_value(item).context("an event that cannot be read")?);
                }
                all.sort_by_key(events::last_time);
                rows.extend(all.iter().map(|event| events::row(event, self.columns, now)));
            }
        }
        Ok(self.table.lines(&rows))
    }
}

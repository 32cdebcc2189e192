//! `cargo xtask differential`: a second opinion on HTTP probes that nobody here wrote.
//!
//! A client in Go (tests/differential, standard library, as section 4 of the semantics describes kubelet's) and defib's
//! engine on a real ring probe the same server, which does as thousands of generated cases say. What they say of it has
//! to be the same: the verdict, the text to the letter, and the requests on the wire. A difference needs a reason
//! in [`reasons`], which docs/conformance.md tells.

mod behaviour;
mod defib;
mod generate;
mod reasons;
mod serve;
mod shapes;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;
use probe_core::wire::headers::AGENT_PROBE;
use serde::{Deserialize, Serialize};

use self::behaviour::Behaviour;
use self::serve::Serving;
use crate::go;
use crate::repo::Repo;

const CLIENT_SOURCE: &str = "tests/differential";
const CLIENT: &str = "target/differential";
/// Of every probe. What hangs costs as much, so it is short; what answers does so within milliseconds.
const TIMEOUT_MS: u64 = 1_000;
const BEHAVIOURS: u16 = 2_000;
const SEED: u64 = 20_261_128;

#[derive(Args)]
pub struct DifferentialArgs {
    /// How many cases
    #[arg(long, default_value_t = BEHAVIOURS, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    behaviours: u16,
    /// What the cases are made from
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Only these cases, each told in full
    #[arg(long, value_delimiter = ',')]
    only: Vec<u16>,
    /// Write every case with both opinions as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl DifferentialArgs {
    /// As the gate runs it.
    pub fn of_gate() -> DifferentialArgs {
        DifferentialArgs { behaviours: BEHAVIOURS, seed: SEED, only: Vec::new(), json: None }
    }
}

/// What one of the two says of a case.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Opinion {
    pub verdict: String,
    pub text: String,
    /// Requests as the server got them.
    pub requests: Vec<String>,
}

#[derive(Serialize)]
struct Compared<'a> {
    id: u16,
    family: &'a str,
    kubelet: &'a Opinion,
    defib: &'a Opinion,
    reason: Option<&'static str>,
}

pub fn run(repo: &Repo, args: &DifferentialArgs) -> Result<()> {
    let client = repo.path(CLIENT);
    let version = go::build(repo, CLIENT_SOURCE, &client)?;
    println!("differential: {} cases of seed {}, {version}", args.behaviours, args.seed);
    let behaviours: Vec<Behaviour> = (0..args.behaviours)
        .filter(|id| args.only.is_empty() || args.only.contains(id))
        .map(|id| generate::behaviour(args.seed, id))
        .collect();
    let serving = Serving::start(&behaviours)?;
    let mut theirs = with_requests(of_go(&client, &behaviours)?, &serving);
    let mut ours = with_requests(defib::opinions(&behaviours, TIMEOUT_MS)?, &serving);
    // What differs is asked again, one at a time: a machine that stands still for a second makes timeouts.
    let again: Vec<&Behaviour> =
        behaviours.iter().filter(|behaviour| theirs.get(&behaviour.id) != ours.get(&behaviour.id)).collect();
    for behaviour in again {
        let alone = std::slice::from_ref(behaviour);
        theirs.extend(with_requests(of_go(&client, alone)?, &serving));
        ours.extend(with_requests(defib::opinions(alone, TIMEOUT_MS)?, &serving));
    }
    let compared: Vec<Compared<'_>> =
        behaviours.iter().filter_map(|behaviour| compare(behaviour, &theirs, &ours)).collect();
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&compared).context("the cases")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    report(&behaviours, &compared, !args.only.is_empty())
}

fn compare<'a>(
    behaviour: &'a Behaviour,
    theirs: &'a BTreeMap<u16, Opinion>,
    ours: &'a BTreeMap<u16, Opinion>,
) -> Option<Compared<'a>> {
    let (kubelet, defib) = (theirs.get(&behaviour.id)?, ours.get(&behaviour.id)?);
    let reason = if kubelet == defib { None } else { reasons::reason(behaviour, kubelet, defib) };
    Some(Compared { id: behaviour.id, family: behaviour.family, kubelet, defib, reason })
}

fn report(behaviours: &[Behaviour], compared: &[Compared<'_>], is_full: bool) -> Result<()> {
    ensure!(
        compared.len() == behaviours.len(),
        "{} of {} cases have two opinions",
        compared.len(),
        behaviours.len()
    );
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    let mut unexplained = 0;
    for case in compared {
        let differs = case.kubelet != case.defib;
        if differs && case.reason.is_none() {
            unexplained += 1;
        }
        if let Some(reason) = case.reason {
            *reasons.entry(reason).or_default() += 1;
        }
        if is_full || (differs && case.reason.is_none()) {
            let behaviour = behaviours.iter().find(|behaviour| behaviour.id == case.id);
            println!(
                "case {} ({}):\n  kubelet {:?}\n  defib   {:?}",
                case.id, case.family, case.kubelet, case.defib
            );
            if let Some(behaviour) = behaviour.filter(|_| is_full) {
                println!("  asked {} {:?} {:?}", behaviour.scheme, behaviour.path, behaviour.headers);
                for script in &behaviour.scripts {
                    println!("  script {}", defib::shown(script));
                }
            }
        }
    }
    let mut verdicts: BTreeMap<&str, u32> = BTreeMap::new();
    for case in compared {
        *verdicts.entry(case.kubelet.verdict.as_str()).or_default() += 1;
    }
    println!("differential: kubelet's client says {verdicts:?}");
    for (reason, count) in reasons {
        println!("differential: {count} differ: {reason}");
    }
    ensure!(unexplained == 0, "{unexplained} of {} cases differ without a reason", compared.len());
    println!("differential: {} cases, no difference without a reason", compared.len());
    Ok(())
}

/// Adds what the server heard meanwhile.
fn with_requests(mut opinions: BTreeMap<u16, Opinion>, serving: &Serving) -> BTreeMap<u16, Opinion> {
    let mut heard: HashMap<u16, Vec<Vec<u8>>> = serving.take_heard();
    for (id, opinion) in &mut opinions {
        let requests = heard.remove(id).unwrap_or_default();
        opinion.requests = requests.iter().map(|request| request.escape_ascii().to_string()).collect();
        opinion.text = without_own_port(&opinion.text);
    }
    opinions
}

fn of_go(client: &std::path::Path, behaviours: &[Behaviour]) -> Result<BTreeMap<u16, Opinion>> {
    #[derive(Deserialize)]
    struct Line {
        id: u16,
        verdict: String,
        text: String,
    }
    let mut child = Command::new(client)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", client.display()))?;
    let mut stdin = child.stdin.take().context("its input")?;
    let mut lines = Vec::new();
    for behaviour in behaviours {
        serde_json::to_writer(&mut lines, &behaviour.request(AGENT_PROBE, TIMEOUT_MS)).context("a case")?;
        lines.push(b'\n');
    }
    // It answers while it reads.
    let feeder = std::thread::spawn(move || stdin.write_all(&lines));
    let output = child.wait_with_output().context("the client in Go")?;
    ensure!(output.status.success(), "the client in Go: {}", output.status);
    feeder.join().ok().context("the feeder")?.context("the client in Go took no more cases")?;
    serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<Line>()
        .map(|line| {
            let Line { id, verdict, text } = line.context("the client in Go")?;
            Ok((id, Opinion { verdict, text, requests: Vec::new() }))
        })
        .collect()
}

/// The client's own port is another one each time: `127.0.0.1:40000->` becomes `127.0.0.1:?->`.
fn without_own_port(text: &str) -> String {
    let Some((before, after)) = text.split_once("->") else { return text.to_owned() };
    let kept = before.trim_end_matches(|c: char| c.is_ascii_digit());
    if kept.len() == before.len() { text.to_owned() } else { format!("{kept}?->{after}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_port_is_left_out() {
        let text =
            "Get \"http://a/\": read tcp 127.0.0.1:40000->127.0.0.1:80: read: connection reset by peer";
        let expected =
            "Get \"http://a/\": read tcp 127.0.0.1:?->127.0.0.1:80: read: connection reset by peer";
        assert_eq!(without_own_port(text), expected);
        assert_eq!(without_own_port("a->b"), "a->b");
        assert_eq!(without_own_port("EOF"), "EOF");
    }
}

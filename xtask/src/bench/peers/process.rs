//! A contestant that speaks our protocol: `ready`, then `measure` and `stop` on its input, then one report.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use super::contestants::Arena;
use super::loads::{Load, TIMEOUT};
use super::score::Told;

/// Watchdogs: a contestant that hangs is an error, not a figure.
const READY_MAX: Duration = Duration::from_secs(180);
const REPORT_MAX: Duration = Duration::from_secs(60);

pub struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    name: String,
}

impl Process {
    /// Starts `binary` with the flags of the load on `cpu`, and waits until it is ready.
    pub fn start(arena: &Arena, binary: &Path, extra: &[String], cpu: usize, load: &Load) -> Result<Process> {
        let flag = |name: &str, value: String| [format!("--{name}"), value];
        let flags = [
            flag("kind", load.kind.as_str().to_owned()),
            flag("targets", load.targets.to_string()),
            flag("period-ms", load.period.as_millis().to_string()),
            flag("timeout-ms", TIMEOUT.as_millis().to_string()),
            flag("port", super::contestants::PORT.to_string()),
            flag("closed-port", super::contestants::CLOSED_PORT.to_string()),
            flag("scripted-every", arena.plan.script.every.to_string()),
            flag("watched-every", arena.plan.delays.every.to_string()),
        ];
        let mut command = on_cpu(cpu);
        command.arg(binary).args(extra).args(flags.as_flattened());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut child =
            arena.net.inside(|| command.spawn()).with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take().context("its input is piped")?;
        let output = child.stdout.take().context("its output is piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let process = Process { child, input, lines, name };
        let line = process.line(READY_MAX)?;
        anyhow::ensure!(line == "ready", "{} said {line:?} instead of `ready`", process.name);
        Ok(process)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn measure(&mut self) -> Result<()> {
        self.tell("measure")
    }

    /// Ends it and takes its report.
    pub fn stop(mut self) -> Result<Told> {
        self.tell("stop")?;
        let line = self.line(REPORT_MAX)?;
        let told = serde_json::from_str(&line).with_context(|| format!("the report of {}", self.name))?;
        let status = self.child.wait().context("wait")?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(told)
    }

    fn tell(&mut self, word: &str) -> Result<()> {
        writeln!(self.input, "{word}").with_context(|| format!("{} has ended early", self.name))
    }

    fn line(&self, within: Duration) -> Result<String> {
        let line = self.lines.recv_timeout(within);
        line.with_context(|| format!("{} ended, or said nothing for {within:?}", self.name))
    }
}

impl Drop for Process {
    /// After an error nothing of it may stay.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs with all its threads on this CPU.
pub fn on_cpu(cpu: usize) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &cpu.to_string()]);
    command
}

//! The trace of a seed: a hash by which two runs are compared, and lines for a person who replays one.

use std::fmt::Write;

use probe_core::executor::{Input, Output, PodCmd};
use probe_core::model::probe::{ProbeCmd, ProbeEvent};
use probe_core::model::runtime::RuntimeCmd;
use probe_core::model::time::Mono;

/// Lines kept for the report of a seed that fails.
const TAIL: usize = 40;

pub struct Trace {
    hash: u64,
    pub messages: u64,
    mode: Mode,
    line: String,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    Silent,
    Print,
}

impl Trace {
    pub fn new(mode: Mode) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, messages: 0, mode, line: String::with_capacity(TAIL * 4) }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn input(&mut self, now: Mono, executor: usize, input: &Input) {
        self.note(now, executor, "<-", |line| match input {
            Input::Pod(cmd) => pod_cmd(line, cmd),
            Input::Probe(event) => probe_event(line, event),
            Input::Runtime(event) => write!(line, "{event:?}"),
        });
    }

    pub fn output(&mut self, now: Mono, executor: usize, output: &Output) {
        self.note(now, executor, "->", |line| match output {
            Output::Probe(cmd) => probe_cmd(line, cmd),
            Output::Runtime(RuntimeCmd::Start(start)) => write!(line, "Start {:?}", start.instance),
            Output::Runtime(cmd) => write!(line, "{cmd:?}"),
            Output::Event(event) => write!(line, "{:?} {}", event.reason, event.message),
            Output::Status(shown) => {
                write!(line, "Status {} {:?}", shown.spec.uid, shown.status.phase)?;
                shown.status.containers.iter().try_for_each(|it| {
                    write!(line, " [{} {} {} {:?}]", it.restart_count, it.ready, it.started, it.state)
                })
            }
            Output::PodGone(pod) => write!(line, "PodGone {pod}"),
            Output::ProbeNowDone { ticket, result } => {
                write!(line, "ProbeNowDone {ticket:?} {}", result.is_ok())
            }
        });
    }

    fn note(
        &mut self,
        now: Mono,
        executor: usize,
        way: &str,
        text: impl FnOnce(&mut String) -> std::fmt::Result,
    ) {
        self.messages += 1;
        self.line.clear();
        let written = write!(self.line, "{now:?} executor {executor} {way} ");
        let written = written.and_then(|()| text(&mut self.line));
        debug_assert!(written.is_ok(), "a String takes everything");
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.mode == Mode::Print {
            println!("{}", self.line);
        }
    }
}

fn pod_cmd(line: &mut String, cmd: &PodCmd) -> std::fmt::Result {
    match cmd {
        PodCmd::Add(spec) => write!(line, "Add {} {}", spec.name, spec.uid),
        PodCmd::Update(spec) => write!(line, "Update {} {}", spec.name, spec.uid),
        PodCmd::Reject { spec, .. } => write!(line, "Reject {} {}", spec.name, spec.uid),
        PodCmd::Delete { .. } | PodCmd::ProbeNow { .. } | PodCmd::ForgetNow { .. } => write!(line, "{cmd:?}"),
    }
}

fn probe_cmd(line: &mut String, cmd: &ProbeCmd) -> std::fmt::Result {
    match cmd {
        ProbeCmd::Arm(arm) => {
            let (key, instance) = (arm.probe.index, arm.instance);
            write!(line, "Arm {key} generation {} {instance:?} first {:?}", arm.generation, arm.first_due)
        }
        ProbeCmd::Once { ticket, .. } => write!(line, "Once {ticket:?}"),
        ProbeCmd::Hold { .. }
        | ProbeCmd::CutOnce { .. }
        | ProbeCmd::Trigger { .. }
        | ProbeCmd::Drop { .. }
        | ProbeCmd::ExecDone { .. }
        | ProbeCmd::CallDone { .. }
        | ProbeCmd::Resolving { .. }
        | ProbeCmd::Resolved { .. } => write!(line, "{cmd:?}"),
    }
}

fn probe_event(line: &mut String, event: &ProbeEvent) -> std::fmt::Result {
    match event {
        ProbeEvent::Outcome(outcome) => {
            let (key, result) = (outcome.probe.index, &outcome.result);
            let (folded, verdict) = (outcome.folded_successes, result.verdict);
            write!(line, "Outcome {key} generation {} {:?} ", outcome.generation, outcome.instance)?;
            write!(line, "{folded} + {verdict:?} due {:?} {:?}", result.phases.due, result.detail)
        }
        ProbeEvent::ExecDue { .. }
        | ProbeEvent::CallDue { .. }
        | ProbeEvent::CallCut { .. }
        | ProbeEvent::OnceDone { .. }
        | ProbeEvent::Resolve { .. } => {
            write!(line, "{event:?}")
        }
    }
}

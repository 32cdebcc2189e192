//! One container that is watched: from its announcement until its main process is told and reaped. What follows
//! from a death, a mark and a count is decided here, without a clock.
//!
//! A death counts as a kill for memory only with two witnesses: SIGKILL, and what the kernel's OOM killer left
//! behind. That is the rise of the container's `oom_kill` counter and, where victims are marked, a mark on this very
//! process. The counter rises first, then SIGKILL goes out, then the mark is made.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::ExitCell;
use super::source::{Death, Deaths, Mark, Member};
use crate::model::id::InstanceId;
use crate::model::limits::{
    EARLY_DEATHS_MAX, OOM_MARK_AGE, OOM_NAMING, OOM_SETTLE, OOM_SPARED, OOM_SUSPECTS_MAX,
};
use crate::model::runtime::{ExitStatus, OomFacts, OomLimit, OomVictim, RuntimeEvent};
use crate::model::time::{Mono, Now};
use crate::sys::cgroup::{Execs, Leaf, OomKills, OomWatch, Uncounted, leaf_of};
use crate::sys::{clock, procfs};

const SIGKILL: u8 = 9;
/// Nanoseconds of a clock tick of `/proc/<pid>/stat` (USER_HZ is 100).
const TICK_NS: u64 = 10_000_000;

/// A container, as the runtime announces it.
#[derive(Debug)]
pub struct Container {
    pub instance: InstanceId,
    /// Its main process: a child that nobody has reaped.
    pub pidfd: Arc<OwnedFd>,
    pub member: Member,
    /// Where probes and hooks run that defib starts in it; None without cgroups.
    pub execs: Option<Execs>,
    /// The counter of its memory cgroup, where it has one.
    pub oom: Option<OomWatch>,
    /// Where its memory is when it has no counter.
    pub uncounted: Uncounted,
    /// Whether the kernel kills all processes of its memory cgroup when it kills one (`memory.oom.group`).
    pub kills_together: bool,
}

#[derive(Debug)]
pub(super) struct Watched {
    pub container: Container,
    pub status: ExitCell,
    pub stage: Stage,
    /// Whether the zombie is gone.
    pub is_reaped: bool,
    /// Kills that nobody was told of.
    untold: Untold,
    /// Killed by SIGKILL and not marked yet: the mark may come a moment later.
    suspects: Vec<Suspect>,
    /// When the last victim was told: the executor takes two reports of the same moment for one that came twice.
    last_told: Mono,
}

/// A process that may yet turn out to be a victim, with what is known of it only while the instance is there.
#[derive(Copy, Clone, Debug)]
struct Suspect {
    death: Death,
    is_exec: bool,
}

/// A marked process, by what the event says of it.
struct Marked {
    pid: u32,
    command: Box<str>,
    is_exec: bool,
    mark: Mark,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// `Started` was not delivered yet; what the kernel tells meanwhile waits.
    Announced {
        early: Vec<Death>,
    },
    Running,
    /// The main process has died, and whether for memory shows in a moment.
    Undecided {
        status: ExitStatus,
        since: Mono,
        by: Teller,
    },
    /// `Exited` was delivered.
    Told {
        by: Teller,
    },
}

#[derive(Copy, Clone, Default, Debug)]
struct Untold {
    kills: u64,
    limit: Option<OomLimit>,
    since: Mono,
}

/// What is to be done after something was seen of a container.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Nothing because of this; a look that is planned stays planned.
    Nothing,
    /// Look again soon.
    LookAgain,
    /// There is nothing to look for.
    Settled,
}

/// Who told that a main process has ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Teller {
    Record,
    Pidfd,
}

/// Whether the main process was killed for memory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Oom,
    NotOom,
    NotYet,
}

impl Watched {
    pub fn new(container: Container) -> Watched {
        Watched {
            container,
            status: ExitCell::default(),
            stage: Stage::Announced { early: Vec::new() },
            is_reaped: false,
            untold: Untold::default(),
            suspects: Vec::new(),
            last_told: Mono::ZERO,
        }
    }

    /// Nothing more is to come of it.
    pub fn is_over(&self) -> bool {
        self.is_reaped && self.told_by().is_some()
    }

    /// Who told its end; None while nobody has.
    pub fn told_by(&self) -> Option<Teller> {
        match self.stage {
            Stage::Told { by } => Some(by),
            Stage::Announced { .. } | Stage::Running | Stage::Undecided { .. } => None,
        }
    }

    /// The status that was told already, or will be.
    pub fn foretold(&self) -> Option<ExitStatus> {
        match self.stage {
            Stage::Told { .. } => self.status.get().copied(),
            Stage::Undecided { status, .. } => Some(status),
            Stage::Announced { .. } | Stage::Running => None,
        }
    }

    /// `Started` was delivered. Returns the deaths that came before it.
    pub fn start(&mut self) -> Vec<Death> {
        match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Announced { early } => early,
            later => {
                self.stage = later;
                Vec::new()
            }
        }
    }

    /// The kernel's programs told of a death.
    pub fn on_death(
        &mut self,
        death: Death,
        marks: Marks<'_>,
        now: Now,
        out: &mut Vec<RuntimeEvent>,
    ) -> Next {
        if let Stage::Announced { early } = &mut self.stage {
            // The pidfd and the counter tell of what has no room here.
            if early.len() < EARLY_DEATHS_MAX {
                early.push(death);
            }
            return Next::Nothing;
        }
        if death.main_of.is_none() {
            return self.on_child_death(death, marks, now, out);
        }
        match (&self.stage, death.status) {
            (Stage::Running, Some(status)) => {
                self.on_end(status, death.start_boot_ns, Teller::Record, marks, now, out)
            }
            // Told already, or its status is not known before it is reaped.
            _ => Next::Nothing,
        }
    }

    /// The main process has ended with this status, by whatever source.
    pub fn on_end(
        &mut self,
        status: ExitStatus,
        start_boot_ns: u64,
        by: Teller,
        mut marks: Marks<'_>,
        now: Now,
        out: &mut Vec<RuntimeEvent>,
    ) -> Next {
        match self.verdict(status, start_boot_ns, &mut marks, now.mono) {
            Verdict::NotYet => {
                self.stage = Stage::Undecided { status, since: now.mono, by };
                Next::LookAgain
            }
            verdict => {
                self.tell_end(status, verdict, by, marks, now, out);
                Next::Settled
            }
        }
    }

    /// When the start time was not told: that of `/proc`, which is not later.
    pub fn start_boot_ns(&self) -> u64 {
        self.container.member.start_ticks.saturating_mul(TICK_NS)
    }

    /// The counter may have changed, or what was not certain may be so now.
    pub fn look(&mut self, mut marks: Marks<'_>, now: Now, out: &mut Vec<RuntimeEvent>) -> Next {
        match self.stage {
            Stage::Announced { .. } => return Next::LookAgain,
            Stage::Told { .. } => return Next::Settled,
            Stage::Undecided { status, since, by } => {
                return self.decide(status, since, by, marks, now, out);
            }
            Stage::Running => {}
        }
        self.look_for_kills(now.mono);
        if self.untold.kills == 0 {
            let may_come = self.container.oom.as_ref().is_some_and(OomWatch::is_pending);
            return if may_come { Next::LookAgain } else { Next::Settled };
        }
        // The count rises before the victim ends. If that is the main process, its end takes the count.
        if procfs::is_dying(self.container.member.pid).unwrap_or(true) {
            return Next::Settled;
        }
        let waited = now.mono.since(self.untold.since);
        if !self.container.kills_together || waited >= OOM_SETTLE {
            self.name_suspects(&mut marks, now, out);
            self.name_dying(&mut marks, now, out);
        }
        if self.untold.kills == 0 {
            return Next::Settled;
        }
        // Where victims are marked their ends come with a name, so the bare count waits longer. Where not, it is told
        // as soon as the main process is known to be spared: if that is killed from outside now, the kill is not its.
        let certain = match (marks.exist(), self.container.kills_together) {
            (true, _) => OOM_NAMING,
            (false, true) => OOM_SETTLE,
            (false, false) => OOM_SPARED,
        };
        if waited < certain {
            return Next::LookAgain;
        }
        self.tell_count(now, out);
        Next::Settled
    }

    /// The last of the looks has found nothing: what was a sign of a kill to come was none.
    pub fn give_up(&mut self) {
        if let Some(watch) = self.container.oom.as_mut().filter(|_| self.untold.kills == 0) {
            watch.settle();
        }
    }

    /// The main process died of SIGKILL, something was killed for memory, and no mark said what.
    fn decide(
        &mut self,
        status: ExitStatus,
        since: Mono,
        by: Teller,
        mut marks: Marks<'_>,
        now: Now,
        out: &mut Vec<RuntimeEvent>,
    ) -> Next {
        if !self.container.kills_together {
            // A child that is named takes its kill with it.
            self.look_for_kills(now.mono);
            self.name_suspects(&mut marks, now, out);
            self.name_dying(&mut marks, now, out);
        }
        let mut verdict = self.verdict(status, self.start_boot_ns(), &mut marks, now.mono);
        if verdict == Verdict::NotYet {
            if now.mono.since(since) < OOM_SETTLE {
                return Next::LookAgain;
            }
            // No mark came: it was lost. SIGKILL and the counter are two witnesses as well.
            verdict = Verdict::Oom;
        }
        self.tell_end(status, verdict, by, marks, now, out);
        Next::Settled
    }

    fn on_child_death(
        &mut self,
        death: Death,
        mut marks: Marks<'_>,
        now: Now,
        out: &mut Vec<RuntimeEvent>,
    ) -> Next {
        let is_open = matches!(self.stage, Stage::Running | Stage::Undecided { .. });
        // One whose start time did not fit is not recognised as the main process, but it is no child either.
        let is_child = death.pid != self.container.member.pid;
        if !is_open || !is_child || !death.status.is_some_and(is_sigkill) {
            return Next::Nothing;
        }
        // Where all are killed together the main process may be next, and then its end says it all.
        let mark =
            if self.container.kills_together { None } else { marks.take(death.pid, death.start_boot_ns) };
        if let Some(mark) = mark {
            self.name(Suspect { death, is_exec: self.is_exec(&death) }.marked(mark), now, out);
            return Next::Nothing;
        }
        if self.container.oom.is_none() || !marks.exist() {
            return Next::Nothing;
        }
        if self.suspects.len() == OOM_SUSPECTS_MAX {
            self.suspects.remove(0);
        }
        self.suspects.push(Suspect { death, is_exec: self.is_exec(&death) });
        // The counter tells when it is worth a look.
        Next::Nothing
    }

    /// Whether a process that has ended belonged to a probe or hook. `/proc` is no witness: whoever started it may have
    /// waited for it already.
    fn is_exec(&self, death: &Death) -> bool {
        let execs = self.container.execs.as_ref();
        execs.zip(death.cgroup_child_id).is_some_and(|(execs, id)| execs.has_id(id))
    }

    /// A marked process of the container was sent SIGKILL.
    fn name(&mut self, marked: Marked, now: Now, out: &mut Vec<RuntimeEvent>) {
        self.look_for_kills(now.mono);
        let limit = match (&self.container.oom, self.untold.kills) {
            (None, _) => self.container.uncounted.limit(),
            // Marked and not counted: somebody else killed it, and the kernel saw it ending.
            (Some(_), 0) => return,
            (Some(_), _) => self.untold.take(1),
        };
        let Marked { pid, command, is_exec, mark } = marked;
        let victim = OomVictim { pid, command, rss_bytes: mark.rss_bytes, is_exec };
        self.tell_child(OomFacts { kills: 1, victim: Some(victim), limit }, now, out);
    }

    /// Marked processes of the container that have not ended yet. One that waits for memory itself can take seconds.
    fn name_dying(&mut self, marks: &mut Marks<'_>, now: Now, out: &mut Vec<RuntimeEvent>) {
        let Some(cgroup_id) = self.container.member.cgroup_id else { return };
        for thread in marks.all() {
            if self.untold.kills == 0 {
                return;
            }
            let leaf = leaf_of(thread, cgroup_id);
            let stat = procfs::stat(thread).ok().flatten();
            let names = procfs::process_of(thread).zip(procfs::name(thread));
            let (Some(leaf), Some(stat), Some((pid, name))) = (leaf, stat, names) else { continue };
            // The end of the main process says it by itself.
            if pid == self.container.member.pid {
                continue;
            }
            if let Some(mark) = marks.take(thread, stat.start_ticks.saturating_mul(TICK_NS)) {
                let is_exec = leaf == Leaf::Exec;
                self.name(Marked { pid, command: name.into(), is_exec, mark }, now, out);
            }
        }
    }

    fn name_suspects(&mut self, marks: &mut Marks<'_>, now: Now, out: &mut Vec<RuntimeEvent>) {
        for suspect in std::mem::take(&mut self.suspects) {
            let death = suspect.death;
            if now.mono.since(death.at) > OOM_NAMING {
                // A mark that is made now is of a later process with this pid.
                continue;
            }
            match marks.take(death.pid, death.start_boot_ns) {
                Some(mark) => self.name(suspect.marked(mark), now, out),
                None => self.suspects.push(suspect),
            }
        }
    }

    fn verdict(
        &mut self,
        status: ExitStatus,
        start_boot_ns: u64,
        marks: &mut Marks<'_>,
        now: Mono,
    ) -> Verdict {
        if !is_sigkill(status) {
            return Verdict::NotOom;
        }
        self.look_for_kills(now);
        let mark = marks.take(self.container.member.pid, start_boot_ns);
        match (mark, &self.container.oom, self.untold.kills) {
            (Some(_), None, _) => Verdict::Oom,
            (_, None, _) | (_, Some(_), 0) => Verdict::NotOom,
            (None, Some(_), _) if marks.exist() => Verdict::NotYet,
            (_, Some(_), _) => {
                self.untold.take(1);
                Verdict::Oom
            }
        }
    }

    /// Delivers the end, after what it must not overtake.
    fn tell_end(
        &mut self,
        status: ExitStatus,
        verdict: Verdict,
        by: Teller,
        mut marks: Marks<'_>,
        now: Now,
        out: &mut Vec<RuntimeEvent>,
    ) {
        let oom_killed = verdict == Verdict::Oom;
        if oom_killed {
            // Others of the container that died with it say nothing more.
            self.untold = Untold::default();
        } else {
            self.look_for_kills(now.mono);
            self.name_suspects(&mut marks, now, out);
            self.tell_count(now, out);
        }
        // Empty until now: an end is told once.
        let _first = self.status.set(status);
        self.stage = Stage::Told { by };
        out.push(RuntimeEvent::Exited { instance: self.container.instance, status, oom_killed, at: now });
    }

    /// Kills whose victims have no name.
    fn tell_count(&mut self, now: Now, out: &mut Vec<RuntimeEvent>) {
        let kills = self.untold.kills;
        if kills > 0 {
            let limit = self.untold.take(kills);
            self.tell_child(OomFacts { kills, victim: None, limit }, now, out);
        }
    }

    fn tell_child(&mut self, facts: OomFacts, now: Now, out: &mut Vec<RuntimeEvent>) {
        self.last_told = now.mono.max(self.last_told.after(Duration::from_nanos(1)));
        let at = Now { mono: self.last_told, wall: now.wall };
        out.push(RuntimeEvent::ChildOomKilled { instance: self.container.instance, facts, at });
    }

    fn look_for_kills(&mut self, now: Mono) {
        let Some(watch) = &mut self.container.oom else { return };
        match watch.take() {
            Ok(OomKills { kills: 0, .. }) => {}
            Ok(new) => self.untold.add(new, now),
            Err(error) => {
                let instance = self.container.instance;
                tracing::error!(?instance, %error, "kills for memory are not counted any more");
                self.container.oom = None;
            }
        }
    }
}

impl Suspect {
    fn marked(self, mark: Mark) -> Marked {
        let Suspect { death, is_exec } = self;
        Marked { pid: death.pid, command: command(&death.command), is_exec, mark }
    }
}

impl Untold {
    fn add(&mut self, new: OomKills, now: Mono) {
        // What cannot be told apart later is unknown.
        let limit =
            if self.kills > 0 && self.limit != Some(new.limit) { OomLimit::Unknown } else { new.limit };
        let since = if self.kills > 0 { self.since } else { now };
        *self = Untold { kills: self.kills + new.kills, limit: Some(limit), since };
    }

    /// Takes so many, and says whose limit was hit.
    fn take(&mut self, kills: u64) -> OomLimit {
        self.kills = self.kills.saturating_sub(kills);
        self.limit.unwrap_or(OomLimit::Unknown)
    }
}

/// The marks of victims, where there is a source of them.
pub(super) struct Marks<'a>(pub Option<&'a mut (dyn Deaths + 'static)>);

impl Marks<'_> {
    fn exist(&self) -> bool {
        self.0.as_ref().is_some_and(|deaths| deaths.has_marks())
    }

    fn all(&mut self) -> Vec<u32> {
        let Some(deaths) = &mut self.0 else { return Vec::new() };
        let age_ns = u64::try_from(OOM_MARK_AGE.as_nanos()).unwrap_or(u64::MAX);
        deaths.marked(clock::boot_ns().saturating_sub(age_ns))
    }

    fn take(&mut self, pid: u32, start_boot_ns: u64) -> Option<Mark> {
        self.0.as_mut()?.take_mark(pid, start_boot_ns)
    }
}

fn is_sigkill(status: ExitStatus) -> bool {
    matches!(status, ExitStatus::Signal { number: SIGKILL, .. })
}

/// The name up to its zero; what is not UTF-8 is replaced.
fn command(bytes: &[u8]) -> Box<str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into()
}

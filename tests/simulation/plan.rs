//! What one seed does: the pods, what becomes of their containers, what goes wrong around them, and when.

use std::sync::Arc;
use std::time::Duration;

use probe_core::model::pod::PodSpec;
use probe_core::model::probe::ProbeKind;
use probe_core::model::time::Mono;
use probe_core::ring::twin::{Faults, Rng};

use super::pods;

/// Pods that a seed begins with.
pub const PODS: usize = 50;
/// From the first pod to the moment when all are deleted.
pub const DAY: Duration = Duration::from_secs(620);

pub struct Plan {
    pub weather: Weather,
    pub pods: Vec<PodPlan>,
    pub errands: Vec<(Mono, Errand)>,
}

/// How well the threads and the kernel behave.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Least time between two steps: completions and messages that come closer are seen together.
    pub quantum: Duration,
    pub faults: Faults,
    /// Usual delay of a message between threads.
    pub delay_max: Duration,
    /// Times per thousand that a message, and all behind it, take long.
    pub spikes: u16,
    pub spike_max: Duration,
    /// Runtime events per thousand that come a second time, much later.
    pub duplicates: u16,
    /// Longest time that an executor's thread gets no processor; an engine's gets at most a tenth of it.
    pub stall_max: Duration,
    /// Packets are lost, so a healthy target may look hung.
    pub is_lossy: bool,
}

impl Weather {
    /// How much later than in a perfect world anything may be seen: a few messages, each delayed to the
    /// utmost, and the threads at both ends stalled.
    pub fn slack(&self) -> Duration {
        (self.delay_max + self.spike_max + self.stall_max + self.faults.late_max) * 6 + self.quantum * 20
    }
}

/// Something that people do.
#[derive(Clone, Debug)]
pub enum Errand {
    Add {
        pod: usize,
    },
    /// The pod once more under the same name: as soon as `after` is gone.
    AddAfter {
        pod: usize,
        after: usize,
    },
    Delete {
        pod: usize,
        grace_s: Option<u32>,
    },
    Update {
        pod: usize,
        spec: Arc<PodSpec>,
    },
    Reject {
        pod: usize,
    },
    ProbeNow {
        pod: usize,
        container: u16,
        kind: ProbeKind,
    },
    StallExecutor {
        shard: usize,
        lasts: Duration,
    },
    StallEngine {
        shard: usize,
        lasts: Duration,
    },
}

#[derive(Clone, Debug)]
pub struct PodPlan {
    pub spec: Arc<PodSpec>,
    /// Nothing ever goes wrong in it: defib must leave it alone.
    pub is_steady: bool,
    /// One per container.
    pub natures: Vec<Nature>,
}

/// What the instances of a container are like.
#[derive(Clone, Debug)]
pub struct Nature {
    pub create_max: Duration,
    pub start_max: Duration,
    /// Starts per thousand that fail.
    pub start_fails: u16,
    pub life: Life,
    pub term: Term,
    pub cleanup_max: Duration,
    /// By `ProbeKind as usize`.
    pub moods: [Mood; 3],
    pub post_start: HookNature,
    pub pre_stop: HookNature,
}

#[derive(Clone, Debug)]
pub enum Life {
    Serves,
    /// Ends by itself; with `failures` per thousand it fails.
    Ends {
        after_max: Duration,
        failures: u16,
    },
}

/// What the stop signal does.
#[derive(Clone, Debug)]
pub enum Term {
    Exits {
        after_max: Duration,
        code: u8,
    },
    Ignores,
    /// Survives SIGKILL for so long (a process in uninterruptible sleep).
    Unkillable {
        lasts: Duration,
    },
}

/// How the server behind a probe changes over the life of an instance.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Mood {
    Steady,
    /// Good for a while, then hung for ever.
    Wedges,
    Flaps,
    Bad,
    /// Bad for a while, then good.
    LateStarter,
    Mixed,
}

#[derive(Clone, Debug)]
pub struct HookNature {
    pub takes: Duration,
    pub fails: bool,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::new(seed ^ 0x5eed_0000);
        let weather = weather(&mut rng);
        let mut pods = Vec::new();
        let mut errands = Vec::new();
        let mut next_port = 1_024;
        for number in 0..PODS {
            pods.push(pods::pod(number, &mut next_port, &mut rng));
            let at = Mono::ZERO.after(rng.duration_up_to(Duration::from_secs(15)));
            errands.push((at, Errand::Add { pod: number }));
        }
        for _ in 0..15 {
            deletion(&mut pods, &mut errands, &mut next_port, &mut rng);
        }
        for _ in 0..6 {
            change(&pods, &mut errands, &mut rng);
        }
        rejection(&mut pods, &mut errands, &mut next_port, &mut rng);
        questions(&mut errands, &mut rng);
        stalls(&weather, &mut errands, &mut rng);
        Plan { weather, pods, errands }
    }
}

fn weather(rng: &mut Rng) -> Weather {
    let quantum = [200, 500, 1_000, 2_000][rng.below(4) as usize];
    let is_lossy = rng.chance(250);
    let is_rough = is_lossy || rng.chance(500);
    let mut faults = if rng.chance(100) { Faults::none() } else { Faults::harmless() };
    if is_lossy {
        faults.lost = 20;
    }
    Weather {
        quantum: Duration::from_micros(quantum),
        faults,
        delay_max: Duration::from_micros(500 + rng.below(2_500)),
        spikes: if is_rough { 5 } else { 0 },
        spike_max: if is_rough { Duration::from_millis(2_500) } else { Duration::ZERO },
        duplicates: if rng.chance(700) { 100 } else { 0 },
        stall_max: if is_rough { Duration::from_millis(2_000) } else { Duration::ZERO },
        is_lossy,
    }
}

fn moment(rng: &mut Rng, from_s: u64) -> Mono {
    let span = DAY - Duration::from_secs(from_s + 20);
    Mono::from_ns(from_s * 1_000_000_000).after(rng.duration_up_to(span))
}

fn deletion(pods: &mut Vec<PodPlan>, errands: &mut Vec<(Mono, Errand)>, next_port: &mut u16, rng: &mut Rng) {
    let pod = rng.below(PODS as u64) as usize;
    let at = moment(rng, 1);
    let grace_s = rng.chance(300).then(|| rng.below(12) as u32);
    errands.push((at, Errand::Delete { pod, grace_s }));
    if rng.chance(300) {
        let sooner = Errand::Delete { pod, grace_s: Some(rng.below(4) as u32) };
        errands.push((at.after(rng.duration_up_to(Duration::from_secs(8))), sooner));
    }
    if rng.chance(800) {
        let again = pods.len();
        let mut plan = pods::pod(pod, next_port, rng);
        Arc::make_mut(&mut plan.spec).name = pods[pod].spec.name.clone();
        pods.push(plan);
        let at = at.after(rng.duration_up_to(Duration::from_secs(40)));
        errands.push((at, Errand::AddAfter { pod: again, after: pod }));
    }
}

/// A manifest with another container spec (design 9.5).
fn change(pods: &[PodPlan], errands: &mut Vec<(Mono, Errand)>, rng: &mut Rng) {
    let pod = rng.below(pods.len() as u64) as usize;
    if pods[pod].is_steady {
        return;
    }
    let mut spec = PodSpec::clone(&pods[pod].spec);
    let container = rng.below(spec.containers.len() as u64) as usize;
    spec.containers[container].spec_hash = rng.next_u64();
    errands.push((moment(rng, 30), Errand::Update { pod, spec: Arc::new(spec) }));
}

fn rejection(pods: &mut Vec<PodPlan>, errands: &mut Vec<(Mono, Errand)>, next_port: &mut u16, rng: &mut Rng) {
    let pod = pods.len();
    pods.push(PodPlan { is_steady: false, ..pods::pod(900, next_port, rng) });
    errands.push((moment(rng, 1), Errand::Reject { pod }));
}

fn questions(errands: &mut Vec<(Mono, Errand)>, rng: &mut Rng) {
    for _ in 0..30 {
        let pod = rng.below(PODS as u64) as usize;
        let kind = ProbeKind::ALL[rng.below(3) as usize];
        let container = rng.below(3) as u16;
        errands.push((moment(rng, 5), Errand::ProbeNow { pod, container, kind }));
    }
}

fn stalls(weather: &Weather, errands: &mut Vec<(Mono, Errand)>, rng: &mut Rng) {
    if weather.stall_max.is_zero() {
        return;
    }
    for _ in 0..20 {
        let shard = rng.below(2) as usize;
        let lasts = rng.duration_up_to(weather.stall_max);
        errands.push((moment(rng, 1), Errand::StallExecutor { shard, lasts }));
        let lasts = rng.duration_up_to(weather.stall_max);
        errands.push((moment(rng, 1), Errand::StallEngine { shard, lasts }));
    }
}

//! Pods with random specs: roles, probes of all kinds, policies, hooks, and the nature of each container.

use std::sync::Arc;
use std::time::Duration;

use probe_core::model::id::PodUid;
use probe_core::model::pod::{
    ChildOomPolicy, ContainerPort, ContainerSpec, EnvValue, EnvVar, Hook, PodSpec, Protocol, RestartPolicy,
    Role, TerminationMessagePolicy,
};
use probe_core::model::probe::{
    ErroredRuns, ExecAction, Handler, HttpGetAction, PortRef, ProbeKind, ProbeSpec, TcpSocketAction,
};
use probe_core::ring::twin::Rng;

use super::plan::{HookNature, Life, Mood, Nature, PodPlan, Term};

/// What `$(WHO)` in the commands of exec probes expands to.
pub const WHO: &str = "srv";
/// Ports of a container: one per probe kind, then one per hook.
const PORTS_PER_CONTAINER: u16 = 5;
pub const POST_START_PORT: usize = 3;
pub const PRE_STOP_PORT: usize = 4;

const SECOND: Duration = Duration::from_secs(1);

/// A new pod. `number` names it; its ports begin at `next_port`, so that nobody answers for another pod.
pub fn pod(number: usize, next_port: &mut u16, rng: &mut Rng) -> PodPlan {
    let is_steady = rng.chance(400);
    let restart_policy = match rng.below(10) {
        0..=5 => RestartPolicy::Always,
        6..=7 => RestartPolicy::OnFailure,
        _ => RestartPolicy::Never,
    };
    let mut roles = Vec::new();
    for _ in 0..rng.below(4).saturating_sub(1) {
        roles.push(if rng.chance(500) { Role::Init } else { Role::Sidecar });
    }
    let regular = 1 + rng.below(4).saturating_sub(1);
    roles.extend((0..regular).map(|_| Role::Regular));
    let uid = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
    let mut containers = Vec::new();
    let mut natures = Vec::new();
    for (at, role) in roles.into_iter().enumerate() {
        let ports: Vec<u16> = (*next_port..*next_port + PORTS_PER_CONTAINER).collect();
        *next_port += PORTS_PER_CONTAINER;
        let spec = container(&format!("c{at}"), role, &ports, is_steady, rng);
        natures.push(nature(&spec, restart_policy, is_steady, rng));
        containers.push(spec);
    }
    let spec = PodSpec {
        uid: PodUid(uid),
        namespace: "default".into(),
        name: format!("pod-{number}").into(),
        restart_policy,
        termination_grace_s: rng.below(15) as u32,
        containers,
        base_dir: "/".into(),
        hostname: format!("pod-{number}").into(),
        readiness_gates: Vec::new(),
        manifest_json: "{}".into(),
    };
    PodPlan { spec: Arc::new(spec), is_steady, natures }
}

/// The port of a container's probe or hook, as its `ports` list says.
pub fn port_of(spec: &ContainerSpec, which: usize) -> u16 {
    spec.ports[which].container_port
}

fn container(name: &str, role: Role, ports: &[u16], is_steady: bool, rng: &mut Rng) -> ContainerSpec {
    // At most one exec probe per container: its target names no port by which to tell probes apart.
    let mut may_exec = true;
    let mut probe = |kind: ProbeKind, per_mille: u16| {
        let has = role != Role::Init && rng.chance(per_mille);
        has.then(|| probe_spec(kind, ports[kind as usize], &mut may_exec, rng))
    };
    let startup = probe(ProbeKind::Startup, 300);
    let readiness = probe(ProbeKind::Readiness, 400);
    let liveness = probe(ProbeKind::Liveness, 700);
    let mut hook = |which: usize| {
        let has = role != Role::Init && !is_steady && rng.chance(150);
        has.then(|| hook(which, ports[which], rng))
    };
    let (post_start, pre_stop) = (hook(POST_START_PORT), hook(PRE_STOP_PORT));
    let named = ports.iter().enumerate().map(|(at, port)| ContainerPort {
        name: Some(format!("p{at}").into()),
        container_port: *port,
        host_port: None,
        host_ip: None,
        protocol: Protocol::Tcp,
    });
    let spec_hash = rng.next_u64();
    ContainerSpec {
        name: name.into(),
        role,
        image: "none".into(),
        command: vec!["serve".into()],
        args: Vec::new(),
        env: vec![EnvVar { name: "WHO".into(), value: EnvValue::Literal(WHO.into()) }],
        working_dir: None,
        run_as_user: None,
        run_as_group: None,
        memory_limit_bytes: None,
        cpu_limit_millicores: None,
        ports: named.collect(),
        startup,
        readiness,
        liveness,
        post_start,
        pre_stop,
        stop_signal: 15,
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: TerminationMessagePolicy::File,
        on_child_oom: child_oom_policy(spec_hash),
        oom_kills_together: true,
        spec_hash,
    }
}

/// From a number that is random already, so that the rest of a seed is what it was without it.
fn child_oom_policy(spec_hash: u64) -> ChildOomPolicy {
    match spec_hash % 8 {
        0 => ChildOomPolicy::Ignore,
        1..=4 => ChildOomPolicy::Event,
        5..=6 => ChildOomPolicy::RestartContainer,
        _ => ChildOomPolicy::RestartPod,
    }
}

fn probe_spec(kind: ProbeKind, port: u16, may_exec: &mut bool, rng: &mut Rng) -> ProbeSpec {
    let named = PortRef::Name(format!("p{}", kind as usize).into());
    let port = if rng.chance(500) { named } else { PortRef::Number(i32::from(port)) };
    let handler = match rng.below(10) {
        0..=4 => {
            let headers = vec![("X-Probe".into(), "simulation".into())];
            Handler::HttpGet(HttpGetAction { headers, ..HttpGetAction::plain(None, port, "/healthz") })
        }
        8..=9 if std::mem::take(may_exec) => {
            let command = vec!["check".into(), "$(WHO)".into(), kind.as_str().into()];
            Handler::Exec(ExecAction { command })
        }
        _ => Handler::TcpSocket(TcpSocketAction::plain(None, port)),
    };
    let kills = kind != ProbeKind::Readiness;
    ProbeSpec {
        handler,
        initial_delay_s: if rng.chance(500) { 0 } else { rng.below(12) as u32 },
        timeout: Duration::from_secs(1 + rng.below(3)),
        period: Duration::from_secs(if rng.chance(200) { 1 } else { 2 + rng.below(9) }),
        success_threshold: if kills { 1 } else { 1 + rng.below(3) as u32 },
        failure_threshold: 1 + rng.below(4) as u32,
        termination_grace_s: (kills && rng.chance(300)).then(|| 1 + rng.below(10) as u32),
        resets_on_restart: false,
        errored_runs: ErroredRuns::Ignore,
    }
}

fn hook(which: usize, port: u16, rng: &mut Rng) -> Hook {
    match rng.below(3) {
        0 => Hook::Exec(ExecAction { command: vec!["hook".into(), which.to_string().into()] }),
        1 => Hook::HttpGet(HttpGetAction::plain(None, PortRef::Number(i32::from(port)), "/hook")),
        _ => Hook::Sleep { seconds: 1 + rng.below(5) as u32 },
    }
}

fn nature(spec: &ContainerSpec, policy: RestartPolicy, is_steady: bool, rng: &mut Rng) -> Nature {
    let quick = Nature {
        create_max: Duration::from_millis(20),
        start_max: Duration::from_millis(20),
        start_fails: 0,
        life: if spec.role == Role::Init {
            Life::Ends { after_max: 3 * SECOND, failures: 0 }
        } else {
            Life::Serves
        },
        term: Term::Exits { after_max: Duration::from_millis(500), code: 0 },
        cleanup_max: Duration::from_millis(10),
        moods: [Mood::Steady; 3],
        post_start: HookNature { takes: Duration::ZERO, fails: false },
        pre_stop: HookNature { takes: Duration::ZERO, fails: false },
    };
    if is_steady {
        return quick;
    }
    let slow = |rng: &mut Rng, often: u16, most: Duration, usual: Duration| {
        if rng.chance(often) { most } else { usual }
    };
    Nature {
        create_max: slow(rng, 100, 5 * SECOND, quick.create_max),
        start_max: slow(rng, 100, 5 * SECOND, quick.start_max),
        start_fails: if rng.chance(200) { 400 } else { 0 },
        life: life(spec.role, policy, rng),
        term: match rng.below(10) {
            0..=5 => Term::Exits { after_max: 3 * SECOND, code: if rng.chance(500) { 0 } else { 143 } },
            6..=8 => Term::Ignores,
            _ => Term::Unkillable { lasts: 5 * SECOND + rng.duration_up_to(60 * SECOND) },
        },
        cleanup_max: slow(rng, 100, 4 * SECOND, quick.cleanup_max),
        moods: [
            mood(ProbeKind::Startup, rng),
            mood(ProbeKind::Readiness, rng),
            mood(ProbeKind::Liveness, rng),
        ],
        post_start: HookNature { takes: rng.duration_up_to(4 * SECOND), fails: rng.chance(300) },
        pre_stop: HookNature {
            takes: if rng.chance(300) { 900 * SECOND } else { rng.duration_up_to(5 * SECOND) },
            fails: rng.chance(300),
        },
    }
}

fn life(role: Role, policy: RestartPolicy, rng: &mut Rng) -> Life {
    let failures = [0, 300, 1_000][rng.below(3) as usize];
    match role {
        Role::Init => Life::Ends { after_max: 4 * SECOND, failures: if rng.chance(700) { 0 } else { 500 } },
        Role::Sidecar | Role::Regular if rng.chance(300) => {
            // Some long lives, since ten minutes without an end reset the back-off.
            let after_max = SECOND * [1, 20, 120, 700][rng.below(4) as usize];
            Life::Ends { after_max, failures }
        }
        Role::Regular if policy != RestartPolicy::Always && rng.chance(500) => {
            Life::Ends { after_max: 200 * SECOND, failures }
        }
        Role::Sidecar | Role::Regular => Life::Serves,
    }
}

fn mood(kind: ProbeKind, rng: &mut Rng) -> Mood {
    match (kind, rng.below(10)) {
        (ProbeKind::Startup, 0..=4) => Mood::LateStarter,
        (ProbeKind::Startup, 5..=8) => Mood::Steady,
        (ProbeKind::Startup, _) => Mood::Bad,
        (ProbeKind::Readiness | ProbeKind::Liveness, 0..=2) => Mood::Steady,
        (ProbeKind::Readiness | ProbeKind::Liveness, 3..=5) => Mood::Wedges,
        (ProbeKind::Readiness | ProbeKind::Liveness, 6..=7) => Mood::Flaps,
        (ProbeKind::Readiness | ProbeKind::Liveness, 8) => Mood::Bad,
        (ProbeKind::Readiness | ProbeKind::Liveness, _) => Mood::Mixed,
    }
}

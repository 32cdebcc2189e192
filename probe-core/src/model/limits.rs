//! Every bound in one place: what it protects, and why this number.

use std::time::Duration;

/// Largest manifest file read, in bytes. A pod is a few KiB; the API server's own limit is 3 MiB.
pub const MANIFEST_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Largest file of certificate authorities, in bytes: the system's own bundles have a quarter of it.
pub const CA_FILE_MAX_BYTES: u64 = 1024 * 1024;
/// Longest path of a Unix socket in bytes: `sun_path` has 108, the last of them zero (unix(7)).
pub const UNIX_PATH_MAX_BYTES: usize = 107;
/// Largest period or timeout that an annotation gives, in milliseconds: 24 days. Seconds go further.
pub const PROBE_MS_MAX: u64 = i32::MAX as u64;
/// Smallest period of a probe that a node allows unless told otherwise.
pub const PROBE_PERIOD_MIN_DEFAULT: Duration = Duration::from_millis(10);
/// All manifests of a node together, in bytes: 10,000 pods of 25 KiB. Creating one more is refused.
pub const MANIFESTS_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Most pods that one agent holds.
pub const PODS_MAX: usize = 16_384;
/// Most containers (init and regular) of one pod; `ContainerIx` is a u16.
pub const POD_CONTAINERS_MAX: usize = 4_096;
/// Most output kept of an exec probe or HTTP body (kubelet-semantics 4.4, 6).
pub const PROBE_OUTPUT_MAX_BYTES: usize = 10 * 1024;
/// Attempts of a run that errors (kubelet-semantics 8).
pub const PROBE_ATTEMPTS: u32 = 3;
/// HTTP requests of one run, the first included (kubelet-semantics 4.3).
pub const HTTP_REQUESTS_MAX: u32 = 10;
/// Probe runs in flight per engine shard. A run that waits for a slot is late, not failed.
pub const ENGINE_SLOTS_DEFAULT: u32 = 1_024;
/// Commands that one turn of an engine shard takes, so that a flood of them delays no outcome.
pub const ENGINE_INPUTS_PER_TURN_MAX: usize = 4_096;
/// One-shot probes (hooks, `defib probe`) that one engine shard holds at a time; further ones err at once.
pub const ENGINE_ONCES_MAX: usize = 1_024;
/// gRPC health checks in flight per engine shard, each with a connection of its own. One that waits for its place is late,
/// not failed: its timeout begins with the call.
pub const GRPC_CALLS_MAX: usize = 256;
/// Of these, as many as one pod may have, or all that people ask for by hand: targets that say nothing hold a place for
/// their whole timeout. Few pods have more gRPC probes than this.
pub const GRPC_POD_CALLS_MAX: usize = 32;
/// Until a gRPC connection that could not be made is tried again; each further pause is longer by
/// [`GRPC_CONNECT_AGAIN_GROWTH`], up to [`GRPC_CONNECT_AGAIN_MAX`], and by chance longer or shorter by
/// [`GRPC_CONNECT_AGAIN_JITTER`] (grpc-go's defaults). The probe's timeout bounds the tries.
pub const GRPC_CONNECT_AGAIN: Duration = Duration::from_secs(1);
pub const GRPC_CONNECT_AGAIN_GROWTH: f64 = 1.6;
pub const GRPC_CONNECT_AGAIN_JITTER: f64 = 0.2;
pub const GRPC_CONNECT_AGAIN_MAX: Duration = Duration::from_secs(120);
/// How long a gRPC server may take from the first SYN to its first frame, before another connection is tried; longer where
/// the next pause is (grpc-go's `minConnectTimeout`).
pub const GRPC_CONNECT_MIN: Duration = Duration::from_secs(20);
/// Debug data kept of a server's GOAWAY, for the text of a failure.
pub const GOAWAY_DEBUG_MAX_BYTES: usize = 1_024;
/// Largest answer of a gRPC health service, in bytes: it has two. grpc-go takes 4 MiB.
pub const GRPC_ANSWER_MAX_BYTES: usize = 64 * 1024;
/// All bytes that a server may send on the connection of one call: frames without end would take the thread of all calls.
pub const GRPC_HEARD_MAX_BYTES: usize = 128 * 1024;
/// Windows of that connection.
pub const GRPC_WINDOW_BYTES: u32 = 65_535;
/// All headers of an answer as HTTP/2 counts them, in bytes: as of an HTTP answer ([`SLOT_BUFFER_BYTES`]). A mesh may add
/// some KiB of its own. grpc-go takes 16 MiB.
pub const GRPC_HEADERS_MAX_BYTES: u32 = 16 * 1024;
/// Passes over ready sockets that a gRPC call gets at its deadline, for an answer that the kernel has already.
pub const GRPC_LAST_PASSES: u32 = 8;
/// Passes over a ring's ended operations before the shard turns; each runs at least 20 of them.
pub const RING_PASSES_MAX: u32 = 4_096;
/// How long a busy shard lets completions and due probes gather: at most this is a probe late by design, and one
/// wake-up serves all of them (`engine::coalesce`).
pub const COALESCE: Duration = Duration::from_millis(2);
/// The same for a shard with [`MANY_RUNS_PER_S`] or with a period under [`FAST_PERIOD`].
pub const COALESCE_BRIEF: Duration = Duration::from_millis(1);
/// For so long after a run by hand has begun to connect, its shard turns with whatever completes, so that each step of it is
/// seen when it ends. What ends later is seen up to [`COALESCE`] late; answers have the kernel's time at any rate.
pub const EXACT_STEPS: Duration = Duration::from_millis(20);
/// Of all time one in so many parts may be like that, so that a flood of such runs does not cost a busy shard its sharing of
/// wake-ups.
pub const EXACT_ONE_IN: u32 = 10;
/// So much may be taken ahead of that: some fifty probes by hand in a row.
pub const EXACT_DEBT_MAX: Duration = Duration::from_secs(10);
/// One in so many of a shard's slots may be held by one-shot probes (hooks, probes by hand): a hook may hold its own for ten
/// minutes, and scheduled probes do not wait for that.
pub const ONCES_ONE_IN: u32 = 4;
/// So many runs a second share each brief wake-up among a dozen of them: it is a small part of what they cost.
pub const MANY_RUNS_PER_S: u64 = 12_000;
/// A probe with a shorter period or timeout is not made late by two milliseconds.
pub const FAST_PERIOD: Duration = Duration::from_millis(100);
/// While runs are in flight a shard looks at its clock at least so often, so that it knows when it was not there.
pub const WATCH_EVERY: Duration = Duration::from_millis(100);
/// A turn that comes later than asked for by this much was missed.
pub const UNWATCHED_MIN: Duration = Duration::from_millis(5);
/// The same for runs of a timeout below [`SHORT_TIMEOUT`], of which that would be too large a part: a tenth of the shortest
/// one that a node allows unless told otherwise.
pub const UNWATCHED_MIN_SHORT: Duration = Duration::from_millis(1);
/// [`WATCH_EVERY`] while a run with such a timeout is in flight.
pub const WATCH_EVERY_SHORT: Duration = Duration::from_millis(2);
/// The same for timeouts between that and [`MEDIUM_TIMEOUT`].
pub const WATCH_EVERY_MEDIUM: Duration = Duration::from_millis(10);
/// Timeouts below this: an absence that falls between two looks of [`WATCH_EVERY`] may be a tenth of it.
pub const MEDIUM_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeouts below this: two absences that are just not counted may be a tenth of it.
pub const SHORT_TIMEOUT: Duration = Duration::from_millis(100);
/// Requests for what the runs of all probes came to that wait for a shard; further ones are refused.
pub const SCRAPES_MAX: usize = 4;
/// Parts of such an answer that wait for whoever asked.
pub const SCRAPE_PARTS_MAX: usize = 16;
/// Longest wait for a shard to tell the next of them.
pub const SCRAPE_WAIT: Duration = Duration::from_secs(5);
/// Probes that a shard tells of between two turns: little beside the work of a turn.
pub const TALLIES_PER_TURN_MAX: usize = 1_024;
/// Absences of a shard that are kept apart, each shorter than the one before it; shorter ones still count as the last.
pub const ABSENCES_MAX: usize = 64;
/// A run of which this part of its timeout was missed is not judged by silence: before its request was out as a sum, after
/// that at a stretch.
pub const UNWATCHED_PARTS: u32 = 10;
/// Runs in a row that could not be judged before an event says so.
pub const INCONCLUSIVE_ROW: u32 = 10;
/// How long until a connect is tried again for which a Unix socket's server had no room, where the kernel does not wait
/// for room itself (the epoll ring). The probe's timeout bounds the tries: 100 a second.
pub const CONNECT_AGAIN: Duration = Duration::from_millis(10);
/// Completions that would end a quiet time early: more than a turn can have in flight, so that time ends it.
pub const COMPLETIONS_WANTED: usize = 1 << 20;
/// Receive buffer of a slot: the largest response head, and the window the body is drained through.
pub const SLOT_BUFFER_BYTES: usize = 16 * 1024;
/// One in so many slots of a shard may hold a connection that is kept between runs (annotation `keep-alive`).
pub const KEPT_ONE_IN: u32 = 2;
/// One in so many slots of a shard may wait for a resolver. One that is dead takes the whole timeout of each.
pub const RESOLVING_ONE_IN: u32 = 2;
/// Beside these, one in so many may hold a run that waits for its turn there: a hop of a redirect holds its slot already.
/// Further ones err at once, so that a quarter of the slots is left to probes of addresses.
pub const UNRESOLVED_ONE_IN: u32 = 4;
/// Records without data (session tickets, new keys) that an idle kept HTTPS session takes between two runs, in bytes: a
/// server sends a few of under 2 KiB. One that goes on and on loses its connection.
pub const IDLE_RECORDS_MAX_BYTES: usize = 64 * 1024;
/// Look-ups of host names at a time, all engine shards together, each by a thread. One is cheap (its stack is touched as
/// it is used), and a name server that does not answer holds it for 5 to 30 seconds, since the system's resolver cannot
/// be stopped.
pub const RESOLVER_THREADS: usize = 16;
/// Of these, as many as one pod may have, or all probes by hand and hooks: so many pods whose names do not resolve,
/// less one, leave threads to the others.
pub const RESOLVER_POD_THREADS: usize = 4;
/// Questions that wait for such a thread. Each is a few hundred bytes; where there are more, the last one of the pod with
/// the most is errored.
pub const RESOLVER_QUEUE_MAX: usize = 4_096;
/// A question keeps its place in the queue for so long after its run has given up, so that its name gets a turn some time.
pub const RESOLVER_PLACE_KEPT: Duration = Duration::from_secs(10);
/// Names that are known to be slow. Beyond it the one that was noted first is looked up like any other.
pub const RESOLVER_SLOW_MAX: usize = 256;
/// Questions that share one look-up; further ones wait for another one.
pub const RESOLVER_SHARERS_MAX: usize = 1_024;
/// How long a finished HTTP run waits for the server's FIN before it resets the connection.
pub const FIN_WAIT: Duration = Duration::from_millis(5);
/// Commands that wait for one engine shard, and inputs that wait for one executor shard.
/// The memory is taken at start: about 200 bytes an input.
pub const SHARD_QUEUE_MAX: usize = 16_384;
/// Raw events kept for `get events` before the oldest is dropped (and counted).
pub const EVENTS_MAX: usize = 16_384;
/// Termination message kept (kubelet-semantics 15).
pub const TERMINATION_MESSAGE_MAX_BYTES: usize = 4_096;
/// Tail of the log used by `FallbackToLogsOnError`.
pub const FALLBACK_LOG_MAX_BYTES: usize = 2_048;
/// Lines of the log that `FallbackToLogsOnError` takes at most (kubelet-semantics 15).
pub const FALLBACK_LOG_MAX_LINES: usize = 80;
/// One log file, and how many of them an instance keeps (the live one included).
pub const LOG_FILE_MAX_BYTES: u64 = 10 * 1024 * 1024;
/// Files that one instance's log is kept in at most (design 9.6).
pub const LOG_FILES_MAX: u32 = 5;
/// Open files that an agent wants. With fewer an engine shard makes fewer slots than its default; half of them are left
/// to containers.
pub const DESCRIPTORS_WANTED: u64 = 8_192;
/// Smallest grace period that a stop uses (kubelet-semantics 13).
pub const GRACE_MIN_S: u32 = 2;

/// Tries to make a cgroup below folders that another agent may be removing at this moment.
pub const CGROUP_MAKE_ATTEMPTS: u32 = 16;
/// Cgroups above a container that are looked at. systemd with nested containers has about ten.
pub const CGROUP_DEPTH_MAX: usize = 32;
/// `cgroup.events` read at most; the kernel writes two short lines.
pub const CGROUP_EVENTS_MAX_BYTES: u64 = 4_096;
/// Largest description of a process to start: arguments and environment. The kernel's own limit is a quarter
/// of the stack limit, usually 2 MiB.
pub const SPAWN_SPEC_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Exec runs at the same time, each with four descriptors; further ones wait.
pub const EXECS_MAX: usize = 1_024;
/// How long a start waits for the end of what a killed agent left, before it refuses to start beside it.
pub const LEFTOVER_WAIT: Duration = Duration::from_secs(10);
/// Deaths taken from the kernel at once by the sensor.
pub const SENSOR_BATCH: usize = 256;
/// Records of deaths that the sensor takes before it looks at anything else.
pub const DEATHS_PER_PASS_MAX: usize = 4_096;
/// Deaths of one container that are kept until its start was told; pidfd and counter tell of the others.
pub const EARLY_DEATHS_MAX: usize = 16;
/// Killed processes of one container that may still get a mark.
pub const OOM_SUSPECTS_MAX: usize = 16;
/// So long after the count of kills rose the victims' ends may still come, where they are marked; then the bare count
/// is told.
pub const OOM_NAMING: Duration = Duration::from_millis(500);
/// Marks of victims that nobody has asked for so long are dropped: those of other containers' processes. A victim that
/// waits for memory itself can take seconds to end.
pub const OOM_MARK_AGE: Duration = Duration::from_secs(30);
/// How often lost records are asked for, and made up for by a look at every container.
pub const RESYNC_EVERY: Duration = Duration::from_millis(100);
/// A kill is repeated when nothing has changed for so long: the freezer fallback can miss a fork.
pub const KILL_AGAIN: Duration = Duration::from_millis(100);
/// Tries to end what is left of an instance before it is given up and said so.
pub const KILL_ATTEMPTS: u32 = 100;
/// So long after the count of kills rose a main process that is not ending counts as no victim, where the kernel goes on
/// to kill others of its container, and where a mark may still come.
pub const OOM_SETTLE: Duration = Duration::from_millis(10);
/// The same where there is one victim and no mark: between the count and SIGKILL the kernel does nothing else, so only
/// one that is preempted just there is late. Two looks at least lie in this time.
pub const OOM_SPARED: Duration = Duration::from_millis(2);
/// How often the counters of kills for memory are read again while processes go on being killed.
pub const OOM_READS_MAX: usize = 4;
/// Waits between looks at the OOM counter of a v1 cgroup that ran out of memory: it is told of before a process
/// is chosen. When all have passed nothing was killed, the memory was found.
pub const OOM_LOOKS: [Duration; 9] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(1_000),
    Duration::from_millis(5_000),
];
/// How often a log is looked at for rotation, and into how many parts a round is split, so that thousands of
/// logs cost nothing that shows. The same interval as kubelet's.
pub const LOG_ROUND: Duration = Duration::from_secs(10);
/// Parts of a round of log rotation: each looks at a tenth of the logs.
pub const LOG_ROUND_PARTS: u32 = 10;
/// Probes of one `defib bench`: under 200 MiB of probe state.
pub const BENCH_TARGETS_MAX: u32 = 200_000;
/// Runs a second of one `defib bench`: more than any machine does.
pub const BENCH_RATE_MAX_PER_S: u32 = 1_000_000;
/// How often one target of `defib bench` can be probed at most, and at least.
pub const BENCH_PERIOD_MIN: Duration = Duration::from_millis(1);
/// The longest of these periods.
pub const BENCH_PERIOD_MAX: Duration = Duration::from_secs(3_600);
/// How long `defib bench` runs at most.
pub const BENCH_DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Longest timeout of `defib bench`.
pub const BENCH_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Engine threads of `defib bench`, as of an agent.
pub const BENCH_SHARDS_MAX: u16 = 64;
/// Longest time that the histograms of `defib bench` tell apart; what takes longer counts as this.
pub const BENCH_LATENCY_MAX: Duration = Duration::from_secs(3_600);
/// Different texts of failures that `defib bench` counts one by one.
pub const BENCH_FAILURE_TEXTS_MAX: usize = 64;
/// Connections that the built-in server of `defib bench` has open at a time.
pub const BENCH_SERVER_CONNECTIONS_MAX: usize = 4_096;
/// How long `defib bench` waits for an engine that takes no more probes.
pub const BENCH_ARM_WAIT: Duration = Duration::from_secs(10);

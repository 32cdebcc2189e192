//! Whose question is looked up next, who shares a look-up, and what the threads make of it.

use std::sync::mpsc;
use std::time::Duration;

use probe_core::model::limits::{RESOLVER_POD_THREADS, RESOLVER_QUEUE_MAX, RESOLVER_SHARERS_MAX};

use super::*;

const A: Option<PodUid> = Some(PodUid(1));
const B: Option<PodUid> = Some(PodUid(2));
/// Longest wait for a thread, on the slowest machine.
const WATCHDOG: Duration = Duration::from_secs(60);

fn at_ms(ms: u64) -> Mono {
    Mono::from_ns(ms * 1_000_000)
}

/// Somebody whose timeout is a second.
fn question(host: &str, pod: Option<PodUid>, now: Mono, asker: u32) -> lookups::Question<u32> {
    lookups::Question {
        host: host.into(),
        pod,
        asked_at: now,
        until: now.after(Duration::from_secs(1)),
        asker,
    }
}

/// Asks at `ms`. True when it shares a look-up.
fn ask(lookups: &mut Lookups<u32>, ms: u64, host: &str, pod: Option<PodUid>, asker: u32) -> bool {
    let now = at_ms(ms);
    assert!(lookups.make_room(now).is_none());
    lookups.ask(now, question(host, pod, now, asker)) == Asked::Shares(&asker)
}

/// Takes what may be taken at `ms`.
fn take_all(lookups: &mut Lookups<u32>, ms: u64) -> Vec<(FlightId, Box<str>)> {
    std::iter::from_fn(|| lookups.take(at_ms(ms))).collect()
}

fn askers(lookups: &Lookups<u32>, id: FlightId) -> Vec<u32> {
    lookups.askers(id).copied().collect()
}

#[test]
fn a_pod_with_many_dead_names_keeps_no_other_waiting() {
    for pod in [A, None] {
        let mut lookups = Lookups::default();
        (0..100).for_each(|n| assert!(!ask(&mut lookups, 0, &format!("dead{n}"), pod, n)));
        assert_eq!(take_all(&mut lookups, 1).len(), RESOLVER_POD_THREADS);
        ask(&mut lookups, 2, "good", B, 1_000);
        let taken = take_all(&mut lookups, 2);
        assert_eq!(taken.len(), 1);
        assert_eq!(&*taken[0].1, "good");
    }
}

#[test]
fn pods_take_turns() {
    let mut lookups = Lookups::default();
    (0..3).for_each(|n| assert!(!ask(&mut lookups, 0, &format!("a{n}"), A, n)));
    (0..2).for_each(|n| assert!(!ask(&mut lookups, 0, &format!("b{n}"), B, n)));
    let names: Vec<Box<str>> = take_all(&mut lookups, 1).into_iter().map(|(_, host)| host).collect();
    assert_eq!(names, ["a0", "b0", "a1", "b1", "a2"].map(Box::from));
}

#[test]
fn an_ended_look_up_makes_room_for_its_pods_next() {
    let mut lookups = Lookups::default();
    (0..9).for_each(|n| assert!(!ask(&mut lookups, 0, &format!("dead{n}"), A, n)));
    let taken = take_all(&mut lookups, 1);
    assert_eq!(lookups.done(at_ms(2), taken[1].0, false), [1]);
    let next: Vec<Box<str>> = take_all(&mut lookups, 2).into_iter().map(|(_, host)| host).collect();
    assert_eq!(next, [format!("dead{RESOLVER_POD_THREADS}").into_boxed_str()]);
}

#[test]
fn one_look_up_serves_all_that_wait_for_the_name() {
    let mut lookups = Lookups::default();
    ask(&mut lookups, 0, "web", A, 1);
    ask(&mut lookups, 0, "web", B, 2);
    ask(&mut lookups, 0, "other", B, 3);
    let taken = take_all(&mut lookups, 500);
    assert_eq!(taken.len(), 2);
    assert_eq!((askers(&lookups, taken[0].0), askers(&lookups, taken[1].0)), (vec![1, 2], vec![3]));
    // Those waited for half a second, which is not theirs: they wait until 1,500 ms.
    assert!(ask(&mut lookups, 1_400, "web", None, 4));
    assert_eq!(lookups.done(at_ms(2), taken[0].0, false), [1, 2, 4]);
    assert_eq!(lookups.done(at_ms(2), taken[0].0, false), [0; 0], "it has ended");
}

#[test]
fn a_look_up_that_all_have_given_up_is_not_shared() {
    let mut lookups = Lookups::default();
    ask(&mut lookups, 0, "web", A, 1);
    let lost = take_all(&mut lookups, 0);
    assert!(!ask(&mut lookups, 1_000, "web", A, 2), "its packet may be lost");
    let second = take_all(&mut lookups, 1_000);
    assert_eq!((lost.len(), second.len()), (1, 1));
    assert!(ask(&mut lookups, 1_500, "web", B, 3));
    // An error of the first is none of theirs, but an address of any is.
    assert_eq!(lookups.done(at_ms(2), lost[0].0, false), [1]);
    ask(&mut lookups, 2_600, "web", B, 4);
    assert_eq!(lookups.done(at_ms(2), second[0].0, true), [2, 3, 4]);
    assert_eq!(take_all(&mut lookups, 2_700), []);
}

#[test]
fn a_dead_name_leaves_a_thread_to_its_pods_other_names_and_still_fails() {
    let mut lookups = Lookups::default();
    let mut newest = None;
    let mut now_ms = 0;
    for n in 1..RESOLVER_POD_THREADS as u32 {
        assert!(!ask(&mut lookups, now_ms, "dead", A, n));
        newest = lookups.take(at_ms(now_ms));
        now_ms += 1_000;
    }
    assert!(ask(&mut lookups, now_ms, "dead", A, 100), "that name answers nobody");
    assert!(askers(&lookups, newest.unwrap().0).contains(&100));
    assert!(!ask(&mut lookups, now_ms, "good", A, 101));
    assert_eq!(take_all(&mut lookups, now_ms).len(), 1);
    assert!(!ask(&mut lookups, now_ms, "good2", A, 102));
    assert_eq!(take_all(&mut lookups, now_ms).len(), 0);
    assert!(ask(&mut lookups, now_ms + 2_000, "dead", B, 103), "of one name are no more, whosever they are");
}

#[test]
fn a_question_keeps_its_place_for_a_while() {
    let mut lookups = Lookups::default();
    ask(&mut lookups, 0, "forgotten", A, 1);
    ask(&mut lookups, 5_000, "given up", A, 2);
    ask(&mut lookups, 11_500, "web", A, 3);
    let names: Vec<Box<str>> = take_all(&mut lookups, 12_000).into_iter().map(|(_, host)| host).collect();
    assert_eq!(names, ["given up", "web"].map(Box::from));
}

/// Names that hang for nine seconds, and one that does not, asked for every ten: none of them is kept from its turn, however
/// their periods fall.
#[test]
fn every_name_has_its_turn_beside_names_that_hang() {
    const HANGS_MS: u64 = 9_000;
    let (names, good) = (["a", "b", "c", "d", "e"], "good");
    for good_phase in 0..10 {
        let mut lookups = Lookups::default();
        let mut running: Vec<(u64, FlightId, Box<str>)> = Vec::new();
        let mut begun = std::collections::BTreeMap::<Box<str>, u32>::new();
        let (mut answered, mut asker) = (0, 0);
        for now_ms in (0..1_200_000).step_by(100) {
            running.retain(|(until_ms, id, _)| {
                let is_over = *until_ms <= now_ms;
                if is_over {
                    lookups.done(at_ms(now_ms), *id, false);
                }
                !is_over
            });
            let due =
                names.iter().zip(0..).filter(|(_, n)| now_ms % 10_000 == n * 700).map(|(name, _)| *name);
            let good_is_due = (now_ms % 10_000 == good_phase * 1_000).then_some(good);
            for host in due.chain(good_is_due) {
                asker += 1;
                ask(&mut lookups, now_ms, host, A, asker);
            }
            while let Some((id, host)) = lookups.take(at_ms(now_ms)) {
                *begun.entry(host.clone()).or_default() += 1;
                if *host == *good {
                    answered += usize::from(lookups.askers(id).count() > 0);
                    lookups.done(at_ms(now_ms), id, true);
                } else {
                    running.push((now_ms + HANGS_MS, id, host));
                }
            }
        }
        assert!(answered >= 100, "phase {good_phase}: {answered}, {begun:?}");
        assert!(names.iter().all(|name| begun[*name] >= 20), "phase {good_phase}: {begun:?}");
    }
}

#[test]
fn a_full_queue_costs_the_pod_that_filled_it() {
    let mut lookups = Lookups::default();
    ask(&mut lookups, 0, "b", B, 0);
    let many = RESOLVER_QUEUE_MAX as u32;
    (1..many).for_each(|n| assert!(!ask(&mut lookups, 10, "a", A, n)));
    let refused = lookups.make_room(at_ms(20));
    assert_eq!(refused.map(|question| question.asker), Some(many - 1));
    ask(&mut lookups, 20, "b", B, many);
    assert!(lookups.make_room(at_ms(1_010)).is_none(), "by then nobody waits for most of them");
    let taken = take_all(&mut lookups, 1_015);
    assert_eq!(taken.iter().map(|(id, _)| askers(&lookups, *id)).collect::<Vec<_>>(), [[many]]);
}

#[test]
fn so_many_share_one_look_up() {
    let mut lookups = Lookups::default();
    (0..RESOLVER_SHARERS_MAX as u32 + 1).for_each(|n| assert!(!ask(&mut lookups, 0, "web", A, n)));
    let taken = take_all(&mut lookups, 1);
    let shared: Vec<usize> = taken.iter().map(|(id, _)| askers(&lookups, *id).len()).collect();
    assert_eq!(shared, [RESOLVER_SHARERS_MAX, 1]);
}

#[test]
fn the_threads_answer_and_end_with_the_last_door() {
    let (resolver, threads) = Resolver::start().unwrap();
    let (answers, told) = mpsc::channel();
    let answer_to = Box::new(move |answer| answers.send(answer).unwrap());
    let ticket = Ticket(7);
    resolver.clone().ask(Question { ticket, host: "localhost".into(), until: Mono::MAX, pod: A, answer_to });
    let said = [(); 2].map(|()| told.recv_timeout(WATCHDOG).unwrap());
    let ip = IpAddr::from([127, 0, 0, 1]);
    assert!(matches!(said[0], ProbeCmd::Resolving { ticket: Ticket(7) }), "{said:?}");
    assert!(matches!(said[1], ProbeCmd::Resolved { ticket: Ticket(7), addr: Ok(found) } if found == ip));
    drop(resolver);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn another_pods_name_is_found_while_one_pods_names_hang() {
    let (free, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (resolver, threads) = Resolver::with(move |host| {
        if host.starts_with("dead") {
            // Until the test drops the other end.
            let _ = held.lock().unwrap().recv();
        }
        Ok(IpAddr::from([10, 0, 0, 1]))
    })
    .unwrap();
    let (answers, told) = mpsc::channel();
    let ask = |host: &str, pod, ticket| {
        let answers = answers.clone();
        // The last answers come when nobody listens any more.
        let answer_to = Box::new(move |answer| drop(answers.send(answer)));
        let ticket = Ticket(ticket);
        resolver.ask(Question { ticket, host: host.into(), until: Mono::MAX, pod, answer_to });
    };
    (0..100).for_each(|n| ask(&format!("dead{n}"), A, n));
    ask("web", B, 100);
    let begun = [(); RESOLVER_POD_THREADS + 2].map(|()| told.recv_timeout(WATCHDOG).unwrap());
    let answered = begun.iter().filter_map(|said| match said {
        ProbeCmd::Resolved { ticket, .. } => Some(ticket.0),
        _ => None,
    });
    assert_eq!(answered.collect::<Vec<_>>(), [100]);
    drop((free, resolver));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

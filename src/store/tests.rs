use super::samples::{at, event, running, spec};
use super::*;

const START: u64 = 100;

fn store_with(names: &[&str]) -> Store {
    let store = Store::new(START);
    for (uid, name) in (1..).zip(names) {
        store.apply(StoreUpdate::Status(Box::new(running(spec(uid, name, &["main"])))));
    }
    store
}

fn names(store: &Store) -> Vec<String> {
    store.pods(None).items.iter().map(|pod| pod.snapshot.spec.name.to_string()).collect()
}

#[test]
fn versions_grow_with_visible_changes_only() {
    let store = store_with(&["b", "a"]);
    assert_eq!(store.version(), START + 2);
    assert_eq!(names(&store), ["a", "b"]);
    let same = store.pod("default", "a").unwrap().snapshot;
    store.apply(StoreUpdate::Status(Box::new((*same).clone())));
    assert_eq!(store.version(), START + 2, "nothing changed");
    store.apply(StoreUpdate::PodGone(PodUid(1)));
    store.apply(StoreUpdate::PodGone(PodUid(1)));
    assert_eq!(store.version(), START + 3);
    assert_eq!(names(&store), ["a"]);
    assert!(store.pod_by_uid(PodUid(1)).is_none());
    let changes = store.pod_changes(START, 9).unwrap();
    let seen: Vec<_> = changes.iter().map(|change| (change.version - START, change.kind)).collect();
    assert_eq!(seen, [(1, ChangeKind::Added), (2, ChangeKind::Added), (3, ChangeKind::Deleted)]);
    assert_eq!(changes[2].object.version, START + 3);
}

#[test]
fn a_name_that_is_given_to_a_new_pod_deletes_the_old_one() {
    let store = store_with(&["a"]);
    store.apply(StoreUpdate::Status(Box::new(running(spec(7, "a", &["main"])))));
    let kinds: Vec<_> = store.pod_changes(START, 9).unwrap().iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Added, ChangeKind::Deleted, ChangeKind::Added]);
    assert_eq!(store.pod("default", "a").unwrap().snapshot.spec.uid, PodUid(7));
}

#[test]
fn events_are_merged_and_kept_raw() {
    let store = Store::new(START);
    for second in [1, 2, 3] {
        store.apply(StoreUpdate::Event(event(1, "a", "same", at(second))));
    }
    store.apply(StoreUpdate::Event(event(1, "a", "other", at(4))));
    let merged = store.events(Some("default")).items;
    let lines: Vec<_> =
        merged.iter().map(|object| (&*object.line.event.message, object.line.count)).collect();
    assert_eq!(lines, [("same", 3), ("other", 1)]);
    assert_eq!(store.raw_events(None).events.len(), 4);
    assert!(store.events(Some("elsewhere")).items.is_empty());

    let ttl_s = u32::try_from(EVENT_TTL.as_secs()).unwrap();
    store.expire_events(at(ttl_s + 4).mono);
    assert_eq!(store.events(None).items.len(), 1, "the line that was touched at second 4");
    assert_eq!(store.event_changes(START, 99).unwrap().last().unwrap().kind, ChangeKind::Deleted);
    assert_eq!(store.raw_events(None).events.len(), 1);
}

#[test]
fn a_flood_of_events_drops_the_oldest_and_counts() {
    let store = Store::new(START);
    for n in 0..EVENTS_MAX + 5 {
        store.apply(StoreUpdate::Event(event(n as u128, "a", "x", at(1))));
    }
    let raw = store.raw_events(None);
    assert_eq!((raw.events.len(), raw.dropped), (EVENTS_MAX, 5));
    assert_eq!(store.events(None).items.len(), EVENTS_MAX);
    assert!(store.event_changes(START, 1).is_err(), "expired");
}

#[tokio::test]
async fn waiting_ends_with_the_change() {
    let store = store_with(&["a"]);
    let waiter = tokio::spawn({
        let store = store.clone();
        async move { store.wait_for(|store| store.pod("default", "a").is_none().then_some(())).await }
    });
    tokio::task::yield_now().await;
    store.apply(StoreUpdate::PodGone(PodUid(1)));
    waiter.await.unwrap();
}

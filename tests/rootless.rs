//! The README's first command for an ordinary user: no root, no cgroups, nothing installed.

use test_support::{AFTER_A_WHILE, World};

/// `nobody`: it owns nothing and has no runtime directory.
const NOBODY: u32 = 65_534;

#[test]
fn the_wedged_example_is_restarted_for_an_ordinary_user() {
    let world = World::of_user(NOBODY);
    let example = std::fs::read_to_string("examples/wedge.yaml").expect("the example is in the repository");
    let file = world.write("wedge.yaml", &example);
    let mut agent = world.run(&[&file], &[]);
    agent.wait_for_wedge();
    let log = agent.log().all().join("\n");
    for said_once in ["no cgroups", "no memory limits", "runAsUser"] {
        assert_eq!(log.matches(said_once).count(), 1, "{said_once:?} in\n{log}");
    }
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

#[test]
fn another_user_is_a_failed_event_not_a_wrong_user() {
    let world = World::of_user(NOBODY);
    let file = world.write(
        "other.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: other}\nspec:\n  terminationGracePeriodSeconds: 2\n  \
         containers:\n  - name: main\n    command: [sleep, '1000']\n    securityContext: {runAsUser: 1000}\n",
    );
    let mut agent = world.run(&[&file], &[]);
    let (_, line) = agent.wait_for("Failed", AFTER_A_WHILE);
    assert!(line.contains("Error: ") && line.contains("1000"), "{line}");
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

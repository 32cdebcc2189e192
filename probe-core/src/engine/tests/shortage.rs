//! What this host lacks is nobody else's failure.

use super::*;

#[test]
fn a_host_without_a_free_port_judges_nobody() {
    let text = "dial tcp 10.0.0.1:80: connect: cannot assign requested address";
    check("http", http(), Some(Behaviour::NoPort), Verdict::Errored, Some(&format!("{URL}{text}")), 0);
    check("tcp", tcp(), Some(Behaviour::NoPort), Verdict::Errored, Some(text), 0);

    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::NoPort);
    sim.arm(0, 1, http());
    sim.run_until(at_ms(1_000));
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, OK));
    sim.run_until(at_ms(12_000));
    let verdicts: Vec<_> = sim.outcomes().iter().map(|(_, outcome)| outcome.result.verdict).collect();
    assert_eq!(verdicts.last(), Some(&Verdict::Success), "{verdicts:?}");
    assert!(!verdicts.contains(&Verdict::Failure), "{verdicts:?}");
    assert!(sim.shard.stats().counters.shortages > 0);
    sim.finish();
}

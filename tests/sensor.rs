//! Deaths of main processes, end to end: none is missed and none is told twice, whoever tells them.

mod sensor {
    mod kills;
    mod ordinary;
    mod port;
    mod random;
    mod statuses;
    mod victims;
}

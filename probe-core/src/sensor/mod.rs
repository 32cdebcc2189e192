//! Process deaths as one event type, from pidfds.

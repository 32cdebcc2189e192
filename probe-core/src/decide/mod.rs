//! Pure decisions: input and time in, actions out. No clock, file or socket inside.

//! The probe engine: one shard per thread, one ring per shard.

//! Scripts for the shard: inputs at times, and the outputs they must bring.

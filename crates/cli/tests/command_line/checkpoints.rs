//! Model folders as they come from hubs and frameworks: weights, shards, configs.

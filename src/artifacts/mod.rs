//! Snapshots, logs and outputs in an object store.

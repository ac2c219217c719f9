//! A PostgreSQL of the service's own, from the binaries on the machine.

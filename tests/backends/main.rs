//! What every backend must do (`conformance`), asked of each of them, and what only one does.

mod builds;
mod builds_as_user;
mod conda;
mod conformance;
mod containers;
#[path = "../fake_kubernetes/mod.rs"]
mod fake_kubernetes;
mod harness;
mod images;
mod kubernetes;
mod kubernetes_facts;
mod kubernetes_ranks;
mod kubernetes_real;
mod kubernetes_shell;
mod own_users;
mod process;
mod slow_environments;
mod slow_pip_files;
mod slurm;

//! What every backend must do (`conformance`), asked of each of them, and what only one does.

mod builds;
mod conda;
mod conformance;
mod containers;
mod harness;
mod images;
mod process;
mod slow_environments;
mod slow_pip_files;
mod slurm;

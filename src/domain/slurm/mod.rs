//! What Slurm is told and what its answers mean: pure. The commands are run in `backend::slurm`.
//!
//! A job's name is made of run and attempt, so that it is found again whatever was lost. What Slurm says of it is joined with
//! what its script wrote on the shared file system ([`Witness`]): each knows something that the other forgets.

mod accounting;
mod job;
mod outcome;
mod queue;
mod refusal;
mod state;
mod submission;

pub use self::{
    accounting::{ACCOUNTING_FIELDS, parse_accounting},
    job::{Job, JobExit, parse_job},
    outcome::{Begun, Witness, found, is_still_unseen, remembered},
    queue::{QUEUE_FORMAT, Queue, parse_queue},
    refusal::is_passing,
    state::{End, JobState, Meaning},
    submission::{cores_per_process, job_name, made_for_one_run, sbatch_arguments},
};

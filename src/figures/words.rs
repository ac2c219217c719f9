//! The words that figures are told apart by: a fixed number of each, because every word is a series for ever.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words!(
    /// A step of a run's life.
    Step {
        /// Making a target for one run.
        Provision = "provision",
        /// Data, source tree, environment.
        Prepare = "prepare",
        /// Handing it to the compute.
        Submit = "submit",
        /// Asking the compute what has become of it.
        Observe = "observe",
        /// Having the compute end it.
        Cancel = "cancel",
        /// Bringing logs and outputs over.
        Collect = "collect",
        /// Sending what it wrote to datastores.
        Send = "send",
    }
);

words!(
    /// How a step came out.
    Outcome {
        /// As it should.
        Ok = "ok",
        /// Whoever was asked did not answer; it is taken again.
        Unavailable = "unavailable",
        /// It failed.
        Failed = "failed",
        /// Somebody else has the run.
        LeaseLost = "lease_lost",
        /// It was left because of a cancel or the worker's end.
        Interrupted = "interrupted",
    }
);

words!(
    /// Whether an environment was there.
    Found {
        /// It was.
        Hit = "hit",
        /// It was built.
        Miss = "miss",
    }
);

words!(
    /// What is deleted when it is old.
    Deleted {
        /// The rows of runs.
        Runs = "runs",
        /// Estimators.
        Estimators = "estimators",
        /// The rows of snapshots.
        Snapshots = "snapshots",
        /// Everything in the artifact store of a run, or of a snapshot.
        Files = "files",
    }
);

words!(
    /// What became of a message.
    Delivered {
        /// The receiver took it.
        Delivered = "delivered",
        /// It is sent again.
        Again = "again",
        /// It was tried as often as may be.
        GivenUp = "given_up",
        /// The receiver wants no more.
        Gone = "gone",
    }
);

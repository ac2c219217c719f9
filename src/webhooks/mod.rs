//! Sends what webhooks are due. Every API replica takes part; what one of them leaves behind when it dies another sends.

mod receiver;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, error_span, info, warn};

use crate::{
    clock::{Clock, entropy},
    domain::{
        project::Qualified,
        secret::Secret,
        trace_parent::TraceParent,
        webhook::{Answered, Verdict, allow_list::AllowList, signature, verdict},
    },
    figures::{Delivered, RunFigures},
    storage::{
        Storage, StorageError,
        webhook_deliveries::{AT_ONCE_EACH, DeliveryAttempt, DueDelivery},
    },
    traces,
    vault::{Vault, purposes},
};

pub use self::receiver::NoReceivers;
use self::receiver::Receivers;

/// How many messages are under way at once: many times those of one webhook, so that one that hangs takes little from the others.
const AT_ONCE: usize = 256;

/// How long what is under way may take when the service stops. What is not recorded by then is sent again by somebody else.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How often the database is asked what is due.
const POLL: Duration = Duration::from_secs(1);

/// How long the database is left alone when it does not answer.
const POLL_IN_TROUBLE: Duration = Duration::from_secs(5);

/// After so long a message whose sender was not heard of is sent by another: well above what a receiver may take.
const LEASE: Duration = Duration::from_secs(60);

/// What sends.
pub struct Dispatcher {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    storage: Storage,
    vault: Vault,
    clock: Arc<dyn Clock>,
    allowed: AllowList,
    receivers: Receivers,
    figures: RunFigures,
}

impl Dispatcher {
    /// One that sends to what is on the list.
    ///
    /// # Errors
    /// When nothing can be sent from here: TLS finds no certificates.
    pub fn new(
        storage: Storage,
        vault: Vault,
        clock: Arc<dyn Clock>,
        allowed: AllowList,
        figures: RunFigures,
        stop: CancellationToken,
    ) -> Result<Self, NoReceivers> {
        let receivers = Receivers::new(&allowed)?;
        Ok(Self { shared: Arc::new(Shared { storage, vault, clock, allowed, receivers, figures }), stop })
    }

    /// Sends until it is told to stop; what is under way then is finished.
    pub async fn run(self) {
        let mut under_way = JoinSet::new();
        let mut busy: HashMap<Qualified, u32> = HashMap::new();
        let mut is_in_trouble = false;
        while !self.stop.is_cancelled() {
            while let Some(done) = under_way.try_join_next() {
                let_go(&mut busy, done);
            }
            let full: Vec<&Qualified> =
                busy.iter().filter(|(_, count)| **count >= AT_ONCE_EACH).map(|(name, _)| name).collect();
            let pause = match self.claim(AT_ONCE - under_way.len(), &full).await {
                Ok(due) => {
                    is_in_trouble = false;
                    let found = !due.is_empty();
                    for delivery in due {
                        *busy.entry(delivery.webhook.clone()).or_default() += 1;
                        // On every line, whatever the level is.
                        let span = error_span!(
                            "delivery", webhook = %delivery.webhook, delivery.id = %delivery.id,
                            run.id = %delivery.message.data.run_id,
                        );
                        under_way.spawn(Arc::clone(&self.shared).deliver(delivery).instrument(span));
                    }
                    // There may be more of it, as soon as there is room.
                    if found { Duration::from_millis(50) } else { POLL }
                }
                Err(error) => {
                    if !is_in_trouble {
                        warn!("what webhooks are due cannot be looked up: {error}");
                    }
                    is_in_trouble = true;
                    POLL_IN_TROUBLE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
        }
        let rest = async { while under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, rest).await.is_err() {
            info!("some receivers of webhooks took too long; what they were being sent is sent again");
        }
    }

    async fn claim(&self, room: usize, full: &[&Qualified]) -> Result<Vec<DueDelivery>, StorageError> {
        match u32::try_from(room) {
            Ok(0) | Err(_) => Ok(Vec::new()),
            Ok(room) => self.shared.storage.claim_deliveries(room, full, LEASE).await,
        }
    }
}

/// Takes note that a message is under way no more.
fn let_go(busy: &mut HashMap<Qualified, u32>, done: Result<Qualified, JoinError>) {
    match done {
        Ok(webhook) => {
            if let Some(count) = busy.get_mut(&webhook) {
                *count -= 1;
                if *count == 0 {
                    busy.remove(&webhook);
                }
            }
        }
        // Whose it was is not known any more; it counts as under way until the service is started again.
        Err(error) => error!("sending a message panicked: {error}"),
    }
}

impl Shared {
    async fn deliver(self: Arc<Self>, due: DueDelivery) -> Qualified {
        let started_at = self.clock.now();
        let started = Instant::now();
        let (webhook, delivery) = (due.webhook.as_str(), due.id.to_string());
        let run = due.message.data.run_id;
        let span = traces::of_delivery(webhook, &delivery, run, due.trace_parent.as_ref());
        let place = traces::place_of(&span).or(due.trace_parent);
        let answered = match self.message(&due, started_at.timestamp(), place) {
            Ok(message) => self.receivers.send(message).instrument(span.clone()).await,
            Err(why) => Answered::Not { why },
        };
        if let Answered::Status { code, .. } = &answered {
            span.record("http.response.status_code", code);
        }
        let [jitter] = entropy();
        let verdict = verdict(&answered, due.tries_left, jitter);
        let what = format!("webhook {webhook}: the message {delivery} of run {run}");
        let outcome = match verdict {
            Verdict::Delivered => {
                debug!("{what} was delivered");
                Delivered::Delivered
            }
            Verdict::Again { after_seconds } => {
                info!(
                    retry_seconds = after_seconds,
                    ?answered,
                    "{what} was not delivered; tried again in {after_seconds} s"
                );
                Delivered::Again
            }
            Verdict::GivenUp => {
                warn!(?answered, "{what} was not delivered, and given up");
                Delivered::GivenUp
            }
            Verdict::Gone => {
                warn!("{what} was answered 410 (Gone): the webhook is disabled");
                Delivered::Gone
            }
        };
        if outcome != Delivered::Delivered {
            span.record("otel.status_code", "ERROR");
        }
        self.figures.delivered(outcome, started.elapsed());
        let attempt = DeliveryAttempt::new(due.number, started_at, started.elapsed(), &answered);
        if let Err(error) = self.storage.record_delivery(&due, &attempt, verdict, self.clock.now()).await {
            warn!("what became of {what} was not recorded, so it is sent again: {error}");
        }
        due.webhook
    }

    /// What is sent, signed. The list may be another one than when the webhook was made.
    fn message(
        &self,
        due: &DueDelivery,
        timestamp: i64,
        place: Option<TraceParent>,
    ) -> Result<receiver::Message, String> {
        let url = self.allowed.url(&due.url).map_err(|error| error.to_string())?;
        let body = serde_json::to_string(&due.message).map_err(|error| error.to_string())?;
        let purpose = purposes::webhook_secret(&due.webhook);
        let opened = due.sealed_secrets.iter().map(|sealed| self.vault.open(&purpose, sealed));
        let secrets: Result<Vec<Secret>, _> = opened.collect();
        let secrets = secrets.map_err(|error| format!("its secret cannot be used: {error}"))?;
        let id = due.id.to_string();
        let signature = signature::sign(&secrets, &id, timestamp, &body);
        Ok(receiver::Message { url, id, timestamp, signature, trace_parent: place, body })
    }
}

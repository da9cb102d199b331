//! One request after the other: the thread of connections queues them, the thread of the engine computes them.
//!
//! A long computation looks now and then at whether it is still wanted. There, quick requests that wait are computed in between, so
//! that a map is drawn at once while attributions take their time. It is still one computation at a time.

use crate::engine::{Answered, Engine, Refusal, Request, Wanted};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// A request that waits for the engine.
pub(super) struct Job {
    request: Request,
    /// Closed when the client has gone: a page aborts what a newer request overtakes.
    answer: oneshot::Sender<Answered<Vec<u8>>>,
}

/// Why the engine does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// Too many requests wait already.
    Full,
    /// The server stops.
    Stopping,
}

/// Requests that wait.
pub(super) struct Queue {
    /// None when the server stops. Quick requests, and those that take long.
    waiting: Mutex<Option<[VecDeque<Job>; 2]>>,
    arrived: Condvar,
    most: usize,
}

impl Queue {
    /// One of at most `most` requests.
    pub fn new(most: usize) -> Arc<Queue> {
        Arc::new(Queue { waiting: Mutex::new(Some(Default::default())), arrived: Condvar::new(), most })
    }

    fn lock(&self) -> MutexGuard<'_, Option<[VecDeque<Job>; 2]>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) -> Result<(), Busy> {
        let mut waiting = self.lock();
        let Some(queues) = waiting.as_mut() else { return Err(Busy::Stopping) };
        // Those whose clients have gone do not count.
        queues.iter_mut().for_each(|queue| queue.retain(|job| !job.answer.is_closed()));
        if queues.iter().map(VecDeque::len).sum::<usize>() >= self.most {
            return Err(Busy::Full);
        }
        queues[usize::from(!job.request.is_quick())].push_back(job);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next request, a quick one if there is one, once there is any within this time.
    pub fn next(&self, time: Duration) -> Option<Job> {
        let waiting = self.lock();
        let is_empty = |queues: &mut Option<[VecDeque<Job>; 2]>| {
            queues.as_ref().is_some_and(|queues| queues.iter().all(VecDeque::is_empty))
        };
        let waited = self.arrived.wait_timeout_while(waiting, time, is_empty);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut()?.iter_mut().find_map(VecDeque::pop_front)
    }

    fn next_quick(&self) -> Option<Job> {
        self.lock().as_mut()?[0].pop_front()
    }

    /// Answers those that wait, and all that come: the server stops.
    pub fn close(&self) {
        *self.lock() = None;
    }

    /// Queues a request and waits for its answer, as JSON.
    pub async fn ask(&self, request: Request) -> Result<Answered<Vec<u8>>, Busy> {
        let (answer, answered) = oneshot::channel();
        self.push(Job { request, answer })?;
        answered.await.map_err(|_| Busy::Stopping)
    }
}

/// Computes a request, unless nobody waits for it.
pub(super) fn compute(job: Job, queue: &Queue, engine: &dyn Engine, stopped: &dyn Fn() -> bool) {
    let Job { request, answer } = job;
    if answer.is_closed() {
        return;
    }
    let is_wanted = || {
        while !request.is_quick()
            && !stopped()
            && let Some(quick) = queue.next_quick()
        {
            compute(quick, queue, engine, stopped);
        }
        !answer.is_closed() && !stopped()
    };
    let result = caught(|| request.answer(engine, &Wanted::while_true(&is_wanted)));
    // The client may have gone meanwhile.
    let _ = answer.send(result);
}

/// A panic is an answer like any other failure: the next request is computed.
fn caught(f: impl FnOnce() -> Answered<Vec<u8>>) -> Answered<Vec<u8>> {
    let panicked = "internal: the computation panicked; the terminal says where.";
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(Refusal::Failed(panicked.into())))
}

//! Record frames of a snapshot decoded on a few threads while another one reads on.
//!
//! What comes out does not depend on how many there are: parts are put together in the order of the
//! file, and of several troubles the first in the file is told.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::model::{Case, RecordKey};

use super::format::{self, Frame};
use super::frame::{Body, Damage, Trouble};
use super::seal::Seal;
use super::translation::Translation;

/// Most threads that decode: beyond it reading the file is what takes the time.
const DECODERS_MAX: usize = 4;

/// Most frames that wait to be decoded; then reading waits too.
const FRAMES_WAITING_MAX: usize = 8;

/// The records of one frame.
pub(super) struct Part {
    /// Offset of the frame in its file, in bytes.
    pub(super) at: u64,
    /// Their shard; none in files of versions before 3.
    pub(super) shard: Option<u8>,
    pub(super) records: Vec<(RecordKey, Case)>,
}

/// How many threads decode unless somebody says so: one for each core.
pub(super) fn count() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(DECODERS_MAX)
}

/// Runs `read`, which hands frames of records over, and decodes these on `count` threads; on its
/// own when that is one. Gives what `read` gave, and the parts in the order of the file.
pub(super) fn with<T>(
    count: usize,
    seal: Option<&Seal>,
    translation: &Translation,
    read: impl FnOnce(&mut dyn FnMut(Body)) -> Result<T, Trouble>,
) -> Result<(T, Vec<Part>), Trouble> {
    let decoder = || Decoder { seal, translation, parts: Vec::new(), trouble: None };
    let (outcome, decoders) = if count <= 1 {
        let mut only = decoder();
        (read(&mut |body| only.take(body)), vec![only])
    } else {
        let (sender, receiver) = sync_channel::<Body>(FRAMES_WAITING_MAX);
        let receiver = &Mutex::new(receiver);
        thread::scope(|scope| {
            let work = || decoder().all(receiver);
            let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
            // The receiver outlives the threads, so nothing is ever refused.
            let outcome = read(&mut |body| sender.send(body).unwrap_or(()));
            drop(sender);
            let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(decoder) => decoder,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            (outcome, threads.into_iter().map(join).collect())
        })
    };
    together(outcome, decoders)
}

/// Takes whatever the first trouble in the file is, or everything.
fn together<T>(
    outcome: Result<T, Trouble>,
    decoders: Vec<Decoder<'_>>,
) -> Result<(T, Vec<Part>), Trouble> {
    let mut parts = Vec::new();
    let mut first: Option<(u64, Trouble)> = None;
    for decoder in decoders {
        parts.extend(decoder.parts);
        if let Some((at, trouble)) = decoder.trouble
            && first.as_ref().is_none_or(|(before, _)| at < *before)
        {
            first = Some((at, trouble));
        }
    }
    // Whatever stopped the reader lies behind all that it handed over.
    if let Some((_, trouble)) = first {
        return Err(trouble);
    }
    parts.sort_unstable_by_key(|part: &Part| part.at);
    Ok((outcome?, parts))
}

/// One thread's share.
struct Decoder<'a> {
    seal: Option<&'a Seal>,
    translation: &'a Translation,
    parts: Vec<Part>,
    /// The first trouble, and its offset in bytes.
    trouble: Option<(u64, Trouble)>,
}

impl Decoder<'_> {
    fn all(mut self, bodies: &Mutex<Receiver<Body>>) -> Self {
        loop {
            let next = bodies.lock().unwrap_or_else(PoisonError::into_inner).recv();
            match next {
                Ok(body) => self.take(body),
                Err(_) => return self,
            }
        }
    }

    fn take(&mut self, mut body: Body) {
        if self.trouble.is_some() {
            return;
        }
        match self.part(&mut body) {
            Ok(part) => self.parts.push(part),
            Err(trouble) => self.trouble = Some((body.at, trouble)),
        }
    }

    fn part(&self, body: &mut Body) -> Result<Part, Trouble> {
        let at = body.at;
        let damage = |what| Trouble::Damage(Damage::new(at, what));
        match format::take_frame(body.open(self.seal)?, self.translation).map_err(damage)? {
            Frame::Records { shard, records } => Ok(Part { at, shard, records }),
            _ => Err(damage("the kind of a frame is unknown")),
        }
    }
}

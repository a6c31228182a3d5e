//! Requests sent one after the other without waiting for replies in between.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::crash::{self, Step};
use crate::error::Result;

use super::connection::failed;

/// Most requests whose replies are awaited at the same time.
const REQUESTS_WAITING_MAX: usize = 16;

type Reply = std::result::Result<(), tokio_postgres::Error>;
type Waiting<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// The parameters of one request.
pub(super) type Parameters = Vec<Box<dyn ToSql + Sync + Send>>;

/// Requests on one connection, in order. All of them travel in one round trip unless there are very many.
///
/// Inside a transaction the first error makes the server refuse the rest, so nothing after it takes effect,
/// and a final `COMMIT` rolls back; the first error is the one that is reported.
pub(super) struct Requests<'a> {
    client: &'a Client,
    doing: &'static str,
    waiting: VecDeque<Waiting<'a>>,
    first_error: Option<tokio_postgres::Error>,
}

impl<'a> Requests<'a> {
    pub(super) fn new(client: &'a Client, doing: &'static str) -> Self {
        Self { client, doing, waiting: VecDeque::new(), first_error: None }
    }

    /// Sends plain SQL.
    pub(super) async fn plain(&mut self, sql: &'static str) {
        let client = self.client;
        self.send(Box::pin(client.batch_execute(sql))).await;
    }

    /// Sends a prepared statement; what it returns is dropped.
    pub(super) async fn prepared(&mut self, statement: &Statement, parameters: Parameters) {
        let (client, statement) = (self.client, statement.clone());
        let reply = async move {
            let parameters: Vec<&(dyn ToSql + Sync)> =
                parameters.iter().map(|p| &**p as &(dyn ToSql + Sync)).collect();
            client.execute(&statement, &parameters).await.map(drop)
        };
        self.send(Box::pin(reply)).await;
    }

    /// A request is on its way once it was polled, so polling in order keeps the order.
    async fn send(&mut self, mut reply: Waiting<'a>) {
        if self.first_error.is_some() {
            return;
        }
        let answer = poll_fn(|cx| Poll::Ready(reply.as_mut().poll(cx))).await;
        match answer {
            Poll::Pending => self.waiting.push_back(reply),
            Poll::Ready(answer) => self.note(answer),
        }
        if self.waiting.len() > REQUESTS_WAITING_MAX {
            self.receive_one().await;
        }
    }

    /// Passes a step; if it is ordered, the server has carried out all that was sent before.
    ///
    /// # Errors
    /// The first error of any request.
    pub(super) async fn pass(&mut self, step: Step) -> Result<()> {
        if crash::is_ordered(step) {
            self.settle().await?;
        }
        crash::point(step);
        Ok(())
    }

    async fn receive_one(&mut self) {
        if let Some(reply) = self.waiting.pop_front() {
            let answer = reply.await;
            self.note(answer);
        }
    }

    /// Later errors only say that the transaction is over already.
    fn note(&mut self, answer: Reply) {
        if let Err(error) = answer {
            self.first_error.get_or_insert(error);
        }
    }

    /// Waits until everything sent so far is answered.
    ///
    /// # Errors
    /// The first error of any request.
    pub(super) async fn settle(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.receive_one().await;
        }
        self.first_error.take().map_or(Ok(()), |error| Err(failed(self.doing)(error)))
    }
}

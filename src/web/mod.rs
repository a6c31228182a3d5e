//! The page beside the path: is the program well, and what has it done.
//!
//! **Invariant:** what it shows are counts of whole instances and durations, never a value of an
//! indicator and nothing of a record; so whoever reaches it learns nothing about a child.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::report::{self, Event, Metrics};

mod listener;

use listener::Listener;

/// How long answers under way may take once the program stops, in milliseconds.
const FAREWELL_MS_MAX: u64 = 1_000;

/// The running page.
#[derive(Debug)]
pub struct Web {
    /// Where it can be asked; the port that was found when the configured one is 0.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Web {
    /// Returns when the page is closed, which `stop` and nothing else does.
    ///
    /// # Errors
    /// [`Kind::Bug`] when its task panicked.
    pub async fn closed(self) -> Result<()> {
        self.task.await.map_err(|e| Error::bug("serving health and metrics").caused_by(e))
    }
}

/// Opens the page: `/health` answers 200 "ok", or 503 and why; `/metrics` is Prometheus text.
/// It closes when `stop` turns true or its sender is gone.
///
/// # Errors
/// [`Kind::Config`] when the address cannot be listened on.
pub async fn start(
    listen: SocketAddr,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) -> Result<Web> {
    let (listener, address) = Listener::bind(listen).await.map_err(|e| {
        Error::new(Kind::Config, format!("listening on {listen} for health and metrics"))
            .caused_by(e)
            .advise("another program may have the port: change the address of the page")
    })?;
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(numbers))
        .with_state(metrics);
    report::emit(&Event::WebStarted { address });
    let task = tokio::spawn(serve(listener, router, stop));
    Ok(Web { address, task })
}

async fn serve(listener: Listener, router: Router, stop: watch::Receiver<bool>) {
    let stopped = |mut stop: watch::Receiver<bool>| async move {
        // A sender that is gone can no longer ask for more.
        let _ = stop.wait_for(|stopped| *stopped).await;
    };
    let farewell = {
        let stopped = stopped(stop.clone());
        async move {
            stopped.await;
            tokio::time::sleep(Duration::from_millis(FAREWELL_MS_MAX)).await;
        }
    };
    tokio::select! {
        _ = axum::serve(listener, router).with_graceful_shutdown(stopped(stop)).into_future() => {}
        () = farewell => {}
    }
}

async fn health(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.trouble() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn numbers(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_page_tells_health_and_numbers_and_closes() {
        let metrics = Arc::new(Metrics::new(["kampot"]));
        let (stop, stopped) = watch::channel(false);
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let web = start(anywhere, metrics.clone(), stopped.clone()).await.unwrap();

        let answer = ask(web.address, "/health").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("starting\n"), "{answer}");
        metrics.well();
        let answer = ask(web.address, "/health").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\nok\n"), "{answer}");
        let answer = ask(web.address, "/metrics").await;
        assert!(answer.contains("tonle_epochs_written_total 0\n"), "{answer}");
        assert!(ask(web.address, "/cases").await.starts_with("HTTP/1.1 404"));

        let taken = start(web.address, metrics, stopped).await.unwrap_err();
        assert_eq!(taken.kind(), Kind::Config);
        // A connection that says nothing must not keep the program from ending.
        let _silent = TcpStream::connect(web.address).await.unwrap();
        stop.send(true).unwrap();
        web.closed().await.unwrap();
    }
}

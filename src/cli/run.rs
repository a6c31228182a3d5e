//! `tonle run`: the pipeline, continuously or once.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::ConfigArgs;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Ended, Options, Pipeline};
use crate::report::{self, Event, Metrics};
use crate::web;

/// How long an epoch that is being written may take once the program was asked to end. After that it is
/// abandoned: it is in the log, and the next start writes it.
const GRACE: Duration = Duration::from_secs(30);

/// Keeps the tables true to every instance of the configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Read every instance up to now, commit, and end.
    #[arg(long)]
    once: bool,
    /// Worker threads of the dataflow.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = args.config.read(args.workers)?;
    super::runtime()?.block_on(serve(config, args.once))
}

async fn serve(config: Config, once: bool) -> Result<()> {
    let metrics = Arc::new(Metrics::new(config.instance_names()));
    let (stop, stopped) = watch::channel(false);
    listen_for_signals(stop.clone())?;
    let page = match config.web {
        Some(address) => Some(web::start(address, Arc::clone(&metrics), stopped.clone()).await?),
        None => None,
    };
    let options = Options { once, stop: stopped, metrics, observe: Box::new(|_| {}) };
    let ended = match Pipeline::start(config, options).await {
        Ok(pipeline) => pipeline.run().await,
        Err(error) => Err(error),
    };
    stop.send_replace(true);
    if let Some(page) = page {
        page.closed().await?;
    }
    match ended? {
        Ended::Finished(_) => Ok(()),
        Ended::Abandoned(epoch) => {
            Err(abandoned(&format!("epoch {epoch} is the last in Postgres")))
        }
    }
}

/// Turns the first SIGTERM or SIGINT into a stop, and ends the process when the stop takes too long.
fn listen_for_signals(stop: watch::Sender<bool>) -> Result<()> {
    let listen = |kind| {
        signal(kind).map_err(|e| Error::new(Kind::Bug, "listening for signals").caused_by(e))
    };
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let how = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        report::emit(&Event::StopRequested { how });
        stop.send_replace(true);
        tokio::time::sleep(GRACE).await;
        let error = abandoned("the epoch being written did not end within 30 s");
        report::failure(&error);
        std::process::exit(i32::from(error.exit_code()));
    });
    Ok(())
}

fn abandoned(why: &str) -> Error {
    Error::new(Kind::Temporary, format!("ending: {why}"))
        .advise("what was read later is in the log; the next start writes it")
}

//! `tonle freeze`: stores the published figures of a period once.

use super::{ConfigArgs, say};
use crate::error::Result;
use crate::model::Period;
use crate::sink;

/// Stores the published figures of a period once; the view `frozen_differences` shows what changes later. It
/// works beside a running `tonle run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// 2026, 2026-H2, 2026-Q3, 2026-07, W2026-08-02 (a week by one of its days) or FY2026-10 (a fiscal year by
    /// its first month).
    #[arg(value_name = "PERIOD", required_unless_present = "list")]
    period: Option<String>,
    /// Freeze it although it is not over.
    #[arg(long)]
    provisional: bool,
    /// Show what is frozen, and freeze nothing.
    #[arg(long, conflicts_with_all = ["period", "provisional"])]
    list: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let period = args.period.as_deref().map(str::parse::<Period>).transpose()?;
    let config = args.config.read(None)?;
    super::runtime()?.block_on(async {
        let Some(period) = period else { return list(&config.sink).await };
        let figures = sink::freeze(&config.sink, period, args.provisional).await?;
        say(format!("{period} is frozen: {figures} figures"));
        Ok(())
    })
}

async fn list(settings: &sink::Settings) -> Result<()> {
    let frozen = sink::frozen(settings).await?;
    if frozen.is_empty() {
        say("nothing is frozen");
    }
    for sink::Frozen { period, at, figures, provisional } in frozen {
        let note = if provisional { ", before it was over" } else { "" };
        say(format!("{period:<12} {figures:>9} figures, frozen at {at}{note}"));
    }
    Ok(())
}

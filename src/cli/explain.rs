//! `tonle explain`: why a cell holds what it holds.

use std::io::Write;

use super::{ConfigArgs, say};
use crate::dataflow::oracle::{Account, KEYS_MAX};
use crate::error::Result;
use crate::indicator::ALL;
use crate::pipeline::{Explained, explain};
use crate::sink::look::Told;

/// Fewer cases than this could point at one child: such numbers are not for publication.
const PUBLISHED_CASES_MIN: u64 = 5;

/// Explains one cell: its definition in words, its figure and last changes, and of the cases of the state how many are
/// in it, and how many are not, by the first reason. It works beside a running `tonle run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The cell: indicator=CODE, period=2026-Q1 (as `tonle freeze` writes it; none for now), instance=NAME, and a
    /// value for each dimension that it is broken down by; what is not said is all.
    #[arg(value_name = "KEY=VALUE", required = true)]
    cell: Vec<String>,
    /// List the pseudonyms of the cases in the cell as well, never more of them.
    #[arg(long)]
    pseudonyms: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = args.config.read(None)?;
    let explained = super::runtime()?.block_on(explain(&config, &args.cell))?;
    head(&explained);
    figure(&explained);
    for told in &explained.accounts {
        tell(told, args.pseudonyms);
    }
    changes(&explained);
    if explained.accounts.iter().any(is_small) {
        let warning = "note: some of these numbers are of fewer than 5 cases: they are for those who \
                       may see the cases, not for publication";
        writeln!(std::io::stderr().lock(), "{warning}").ok();
    }
    explained.shown.map(|_| ()).map_err(|error| error.while_doing("the tables could not be asked"))
}

fn head(explained: &Explained) {
    let english = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get("en").or(labels.values().next()).cloned().unwrap_or_default()
    };
    let indicator = &explained.indicator;
    say(format!("{}  {}", indicator.code, english(&indicator.title)));
    let definition = english(&indicator.definition);
    if !definition.is_empty() {
        say(format!("  {definition}"));
    }
    for line in &explained.words {
        say(format!("  {line}"));
    }
}

fn figure(explained: &Explained) {
    let cell = &explained.cell;
    let start = cell.period_start.map_or(String::new(), |day| format!(" from {}", day.date()));
    let broken_down = explained.broken_down();
    let instance = if cell.instance == ALL { "all instances" } else { cell.instance.as_str() };
    say(format!("cell        {}{start}, {instance}{broken_down}", cell.period_type));
    match &explained.shown {
        Ok((Some(shown), _)) => {
            let over = if shown.provisional { ", provisional" } else { "" };
            let (figure, revision) = (&shown.figure, shown.revision);
            say(format!("figure      {figure} (revision {revision}, epoch {}{over})", shown.epoch));
        }
        Ok((None, _)) => say("figure      there is no such row: nothing counts in it"),
        Err(error) => say(format!("figure      Postgres could not be asked: {error}")),
    }
    explained.notes.iter().for_each(|note| say(format!("note        {note}")));
    say(format!("state       as of epoch {}, {} records", explained.epoch, explained.records));
}

fn tell(account: &Account, with_keys: bool) {
    if let Some(heading) = &account.heading {
        say(heading);
    }
    let rows = account.rows.map_or(String::new(), |rows| format!(" with {rows} rows"));
    say(format!("{:>10}  cases in it{rows}", account.cases));
    if let Some(numerator) = account.numerator {
        say(format!("{numerator:>10}  of them in the numerator"));
        for (reason, count) in &account.below {
            say(format!("{count:>14}  not: {reason}"));
        }
    }
    let out: u64 = account.out.iter().map(|(_, count)| count).sum();
    say(format!("{out:>10}  cases not in it, by the first reason:"));
    for (reason, count) in &account.out {
        say(format!("{count:>14}  {reason}"));
    }
    if with_keys {
        say(format!("  pseudonyms of the cases in it, {KEYS_MAX} at most:"));
        for key in &account.keys {
            let mut text = format!("{:032x}", key.0);
            [20, 16, 12, 8].into_iter().for_each(|at| text.insert(at, '-'));
            say(format!("  {text}"));
        }
    }
}

fn changes(explained: &Explained) {
    let Ok((_, changes)) = &explained.shown else { return };
    if changes.is_empty() {
        return;
    }
    say("last changes, the newest first:");
    for Told { epoch, at, reason, old, new } in changes {
        let figure = |figure: &Option<String>| figure.clone().unwrap_or_else(|| "none".to_owned());
        let (old, new) = (figure(old), figure(new));
        say(format!("  epoch {epoch}, {at}, {reason}: {old} → {new}"));
    }
}

fn is_small(account: &Account) -> bool {
    let parts = account.out.iter().chain(&account.below).map(|(_, count)| *count);
    let all = parts.chain([account.cases]).chain(account.numerator);
    all.into_iter().any(|count| (1..PUBLISHED_CASES_MIN).contains(&count))
}

//! `tonle plan`: what a configuration would do to the tables, as numbers; nothing is written.

use super::{ConfigArgs, say};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Foreseen, foresee};
use crate::sink::look::{Fate, IndicatorOutlook, Outlook};

/// Most cells of one indicator that may be shown.
const CELLS_MAX: i64 = 1_000;

/// Computes the tables of a configuration from the state and compares them with Postgres; nothing is written, and a
/// `tonle run` beside it is not disturbed. Ends with 0 when nothing would change, with 65 when something would.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Cells shown of each indicator that changes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(..=CELLS_MAX))]
    cells: u16,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = args.config.read(None)?;
    let foreseen = super::runtime()?.block_on(foresee(&config, usize::from(args.cells)))?;
    tell(&foreseen);
    let is_nothing = foreseen.is_nothing();
    let outlook = foreseen.outlook.map_err(|error| {
        error.while_doing("the tables could not be compared, so the plan is not complete")
    })?;
    if is_nothing {
        say("nothing would change");
        return Ok(());
    }
    say(format!("{:>10} rows would be written; nothing was", outlook.rows()));
    let what = "planning: the configuration would change the tables or what is read";
    Err(Error::new(Kind::DataDiffers, what).advise("`tonle run` with it does so"))
}

fn tell(foreseen: &Foreseen) {
    say(format!("packs      {}", foreseen.packs));
    let outlook = foreseen.outlook.as_ref();
    match outlook.map(|outlook| outlook.position.as_ref()) {
        Ok(Some(position)) => say(format!("           the tables follow {}", position.pack)),
        Ok(None) => say("           nothing was committed to the tables yet"),
        Err(error) => say(format!("postgres   FAILED: {error}")),
    }
    say(format!("as of      epoch {}, {} records", foreseen.epoch, foreseen.records));
    foreseen.notes.iter().for_each(|note| say(format!("note       {note}")));
    for name in &foreseen.instances_added {
        say(format!(
            "instance   + {name}: nothing was read of it yet, so none of its figures are below"
        ));
    }
    for name in &foreseen.instances_removed {
        say(format!("instance   - {name}: its cases leave the tables"));
    }
    if !foreseen.new_fields.is_empty() {
        say(format!("fields     + {}", foreseen.new_fields.join(", ")));
        say(
            "           never read so far: every case is read again; until then they are not recorded",
        );
    }
    match outlook {
        Ok(outlook) => differences(outlook),
        Err(_) => {
            for (code, count) in &foreseen.cells {
                say(format!("indicator    {code}: {count} cells"));
            }
        }
    }
}

fn differences(outlook: &Outlook) {
    for (code, indicator) in &outlook.indicators {
        tell_indicator(code, indicator);
    }
    outlook.columns_added.iter().for_each(|name| say(format!("column     + {name}")));
    outlook.columns_dropped.iter().for_each(|name| say(format!("column     - {name}")));
    for (table, rows) in &outlook.extracts {
        let (added, changed, removed) = (rows.added, rows.changed, rows.removed);
        say(format!("rows       {table}: {added} appear, {changed} change, {removed} leave"));
    }
}

fn tell_indicator(code: &str, indicator: &IndicatorOutlook) {
    let (sign, fate) = match indicator.fate {
        Fate::Same => ("~", ""),
        Fate::Added => ("+", "new; "),
        Fate::Removed => ("-", "gone; "),
        Fate::Described => ("~", "described otherwise; "),
    };
    let cells = indicator.cells;
    say(format!(
        "indicator  {sign} {code}: {fate}cells: {} appear, {} change, {} leave",
        cells.added, cells.changed, cells.removed
    ));
    for example in &indicator.examples {
        say(format!("               {example}"));
    }
    let shown = indicator.examples.len() as u64;
    if shown > 0 && shown < cells.total() {
        say(format!("               and {} more", cells.total() - shown));
    }
}

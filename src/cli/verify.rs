//! `tonle verify`: everything computed anew from the state by the oracle, and compared with every table.

use std::collections::BTreeMap;

use super::{ConfigArgs, say};
use crate::error::{Error, Kind, Result};
use crate::pipeline::verify;

pub(super) fn run(args: &ConfigArgs) -> Result<()> {
    let config = args.read(None)?;
    let verified = super::runtime()?.block_on(verify(&config))?;
    let counts = BTreeMap::from([
        ("equal", verified.comparison.equal),
        ("different", verified.comparison.different),
        ("missing", verified.comparison.missing),
        ("surplus", verified.comparison.surplus),
    ]);
    say(format!("epoch {}, {} records", verified.epoch, verified.records));
    for (what, count) in &counts {
        say(format!("{count:>10} rows {what}"));
    }
    for example in &verified.comparison.examples {
        say(format!("  {example}"));
    }
    if verified.comparison.is_equal() {
        return Ok(());
    }
    Err(Error::new(Kind::DataDiffers, "comparing the tables with the state: they differ").advise(
        "the next `tonle run` corrects rows that an epoch touches; to correct all of them, \
                 stop it and delete the state directory",
    ))
}

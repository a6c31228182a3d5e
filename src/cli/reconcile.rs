//! `tonle reconcile`: our figures beside those of Primero's own reports, cell by cell.

use jiff::civil::Date;

use super::{ConfigArgs, say};
use crate::error::{Error, Kind, Result};
use crate::pipeline::parity::{Line, Verdict, Wanted, reconcile};

/// Compares with Primero's own reports. Ends with 0 when all cells are equal, with 65 when some differ, with 69 when
/// none differ and some could not be compared.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this instance.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// First day of the period of the dated reports; it begins a month.
    #[arg(long, value_name = "YYYY-MM-DD", requires = "to")]
    from: Option<Date>,
    /// Last day of the period; it ends a month.
    #[arg(long, value_name = "YYYY-MM-DD", requires = "from")]
    to: Option<Date>,
    /// Read the cases from Primero now, instead of taking those of the state.
    #[arg(long)]
    fresh: bool,
    /// Take a difference whose reason is known for no difference in the exit code.
    #[arg(long)]
    accept_explained: bool,
}

/// How many cells there are of each kind.
#[derive(Default)]
struct Tally {
    equal: usize,
    explained: usize,
    unexplained: usize,
    not_compared: usize,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = args.config.read(None)?;
    let wanted = Wanted {
        instance: args.instance.clone(),
        period: args.from.zip(args.to),
        fresh: args.fresh,
    };
    let lines = super::runtime()?.block_on(reconcile(&config, &wanted))?;
    let mut tally = Tally::default();
    say(row("instance", "report", "sex, age", "ours", "Primero's", "verdict"));
    for line in &lines {
        tally.add(&line.verdict);
        show(line);
    }
    say(format!(
        "{} cells equal, {} different for a known reason, {} different and not explained, {} not compared",
        tally.equal, tally.explained, tally.unexplained, tally.not_compared
    ));
    tally.outcome(args.accept_explained)
}

fn show(line: &Line) {
    let figure = |figure: Option<i64>| figure.map_or("-".to_owned(), |figure| figure.to_string());
    let (ours, theirs) = (figure(line.ours), figure(line.theirs));
    let verdict = line.verdict.to_string();
    say(row(&line.instance, &line.report, &line.cell, &ours, &theirs, &verdict));
}

fn row(
    instance: &str,
    report: &str,
    cell: &str,
    ours: &str,
    theirs: &str,
    verdict: &str,
) -> String {
    format!("{instance:<12} {report:<24} {cell:<26} {ours:>9} {theirs:>9}  {verdict}")
}

impl Tally {
    fn add(&mut self, verdict: &Verdict) {
        *match verdict {
            Verdict::Equal => &mut self.equal,
            Verdict::Different(Some(_)) => &mut self.explained,
            Verdict::Different(None) => &mut self.unexplained,
            Verdict::NotCompared(_) => &mut self.not_compared,
        } += 1;
    }

    /// A difference counts before what could not be compared.
    fn outcome(&self, accept_explained: bool) -> Result<()> {
        let doing = "comparing with Primero's own reports";
        if self.unexplained > 0 {
            return Err(Error::new(Kind::DataDiffers, format!("{doing}: figures differ"))
                .advise("cases may have changed meanwhile: compare again, or with --fresh"));
        }
        if self.explained > 0 && !accept_explained {
            let what = format!("{doing}: figures differ, all for known reasons");
            return Err(Error::new(Kind::DataDiffers, what)
                .advise("--accept-explained takes them for equal in the exit code"));
        }
        if self.not_compared > 0 {
            let what = format!("{doing}: some could not be compared");
            return Err(Error::new(Kind::Unavailable, what)
                .advise("the lines that could not be compared say why"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_the_outcomes_apart() {
        let check = |[explained, unexplained, not_compared]: [usize; 3], accept, code| {
            let tally = Tally { equal: 1, explained, unexplained, not_compared };
            let outcome = tally.outcome(accept);
            assert_eq!(outcome.map_or_else(|error| error.exit_code(), |()| 0), code);
        };
        check([0, 0, 0], false, 0);
        check([1, 0, 0], false, 65);
        check([1, 0, 0], true, 0);
        check([0, 1, 0], true, 65);
        check([0, 0, 1], false, 69);
        check([1, 0, 1], true, 69);
        check([1, 0, 1], false, 65);
        check([1, 1, 1], true, 65);
    }
}

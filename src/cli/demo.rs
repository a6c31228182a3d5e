//! `tonle demo`: simulated Primeros, a private Postgres, the pipeline between them, and a person who watches.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use indicatif::{ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::say;
use crate::config::{Config, Overrides};
use crate::error::{Error, Kind, Result};
use crate::model::{Interner, LocationTree, Reason};
use crate::pipeline::{Ended, Options, Pipeline, Progress, compile};
use crate::postgres::{self, PrivatePostgres};
use crate::report::{self, Format, Level, Metrics};
use crate::sim::{self, Sim};
use crate::sink::{self, Headline};

/// Names of the simulated instances, after rivers and lakes of the country.
const NAMES: [&str; 8] =
    ["mekong", "tonle-sap", "bassac", "sekong", "sesan", "srepok", "stung-sen", "pursat"];

/// Shows the river.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many cases to invent, over all instances.
    #[arg(long, default_value_t = 20_000)]
    cases: u64,
    /// How many Primeros to simulate.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    instances: u8,
    /// Live edits per second, over all instances.
    #[arg(long, default_value_t = 5)]
    edits_per_second: u32,
    /// How long to go on after the first load, for example 60s or 5m.
    #[arg(long = "for", default_value = "60s", value_parser = duration)]
    how_long: Duration,
    /// Use this database instead of a private one; the tables go to its schema `tonle`.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Worker threads of the dataflow.
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|_| "expected 60s, 5m or 1h".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "expected a positive duration".to_owned())
}

pub(super) fn run(args: Args) -> Result<()> {
    // What goes right is told by the screen.
    let level = std::env::var_os(report::LEVEL_VARIABLE).is_none().then_some(Level::Warn);
    report::init(Format::Text, level)?;
    let cluster = match &args.database_url {
        Some(_) => None,
        None => {
            say("Starting a private Postgres ...");
            Some(PrivatePostgres::start(&postgres::Settings::default())?)
        }
    };
    let url = match (&args.database_url, &cluster) {
        (Some(url), _) => url.clone(),
        (None, Some(cluster)) => cluster.url(),
        (None, None) => return Err(Error::bug("the demo has no database")),
    };
    let directory = tempfile::tempdir().map_err(|e| {
        Error::new(Kind::Unavailable, "making a directory for the demo").caused_by(e)
    })?;
    let runtime = super::runtime()?;
    let look = cluster.as_ref().map(PrivatePostgres::psql_line);
    let config = runtime.block_on(show(&args, &url, directory.path(), look))?;
    runtime.block_on(summarize(&config, cluster.as_ref()))
}

async fn show(args: &Args, url: &str, directory: &Path, look: Option<String>) -> Result<Config> {
    let sims = simulate(args).await?;
    let config = configuration(args, url, directory, &sims)?;
    let plan = compile(&config, &LocationTree::default(), &Interner::default())?;
    sink::check(&config.sink, plan.catalog()).await?;
    let (stop, stopped) = watch::channel(false);
    stop_on_interrupt(stop.clone());
    let screen = Screen::new(args, sims, stop, look);
    let options = Options {
        once: false,
        stop: stopped,
        metrics: Arc::new(Metrics::new(config.instance_names())),
        observe: Box::new(screen.observer()),
    };
    let ended = Pipeline::start(config.clone(), options).await?.run().await?;
    if let Ended::Abandoned(epoch) = ended {
        say(format!("Stopped before everything was committed; epoch {epoch} is the last."));
    }
    Ok(config)
}

/// Starts the Primeros. Edits begin when the first load is over.
async fn simulate(args: &Args) -> Result<Vec<Sim>> {
    let count = u64::from(args.instances);
    let mut sims = Vec::new();
    for (index, name) in (0..count).zip(NAMES) {
        say(format!("Inventing the cases of {name} ..."));
        let share = args.cases / count + u64::from(index < args.cases % count);
        sims.push(
            sim::start(sim::Settings {
                name: name.to_owned(),
                seed: 7 + index,
                case_count: share,
                today: Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date(),
                ..sim::Settings::default()
            })
            .await?,
        );
    }
    Ok(sims)
}

/// Writes a configuration as an operator would and reads it back.
fn configuration(args: &Args, url: &str, directory: &Path, sims: &[Sim]) -> Result<Config> {
    let mut text = String::from(
        "packs = [\"cp-core\", \"cambodia\"]\npseudonym_key_file = \"pseudonym.key\"\n\
         time_zone = \"Asia/Phnom_Penh\"\n[database]\nurl = \"\"\n",
    );
    for (sim, name) in sims.iter().zip(NAMES) {
        text += &format!(
            "[[instances]]\nname = \"{name}\"\nurl = \"{}\"\nuser = \"api_reader\"\n\
             password_file = \"password\"\npoll_seconds = 1\ntime_zone = \"Asia/Phnom_Penh\"\n",
            sim.base_url()
        );
    }
    let key = format!("{:032x}", rand::random::<u128>());
    let password = sim::Settings::default().password;
    for (name, content) in [("tonle.toml", &text), ("pseudonym.key", &key), ("password", &password)]
    {
        std::fs::write(directory.join(name), content).map_err(|e| {
            Error::new(Kind::Unavailable, "writing the demo's configuration").caused_by(e)
        })?;
    }
    let overrides = Overrides { workers: Some(args.workers), database_url: Some(url.to_owned()) };
    Config::read(&directory.join("tonle.toml"), &overrides)
}

fn stop_on_interrupt(stop: watch::Sender<bool>) {
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.send_replace(true);
        }
    });
}

/// What the person sees.
struct Screen {
    bar: ProgressBar,
    sims: Vec<Sim>,
    stop: watch::Sender<bool>,
    /// What to type to look into the database meanwhile.
    look: Option<String>,
    edits_per_second: u32,
    how_long: Duration,
    begun: Stopwatch,
}

impl Screen {
    fn new(args: &Args, sims: Vec<Sim>, stop: watch::Sender<bool>, look: Option<String>) -> Self {
        let bar = ProgressBar::new(args.cases);
        let style =
            ProgressStyle::with_template("Loading {wide_bar} {human_pos} of {human_len} cases");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            sims,
            stop,
            look,
            edits_per_second: args.edits_per_second,
            how_long: args.how_long,
            begun: Stopwatch::now(),
        }
    }

    fn observer(mut self) -> impl FnMut(&Progress) {
        let mut loaded = std::collections::BTreeMap::new();
        move |progress| match progress {
            Progress::Loading { instance, records } => {
                loaded.insert(instance.clone(), *records);
                self.bar.set_position(loaded.values().sum());
            }
            Progress::Computing { .. } => {}
            Progress::Committed {
                reason: Reason::FirstLoad, cases, cells, rows, complete, ..
            } => {
                let line = format!(
                    "  {cases} cases -> {cells} indicator values, {} rows written",
                    rows.total()
                );
                if *complete {
                    self.bar.finish_and_clear();
                }
                self.bar.suspend(|| say(line));
                if *complete {
                    self.go_live();
                }
            }
            // The places of an instance, before its cases.
            Progress::Committed { cases: 0, .. } => {}
            Progress::Committed { epoch, cases, cells, rows, newest, .. } => {
                let latency = newest.map(|at| Timestamp::now().as_millisecond() - at.0);
                let latency = latency.map_or("?".to_owned(), |ms| ms.to_string());
                self.bar.suspend(|| {
                    say(format!(
                        "epoch {epoch:>4}  {cases:>3} cases changed  {cells:>5} cells  \
                         {:>5} rows written  {latency:>6} ms from edit to committed row",
                        rows.total()
                    ));
                });
            }
        }
    }

    /// The first load is over: edits begin, and the end is in sight.
    fn go_live(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        say(format!("Loaded in {seconds:.1} s."));
        if let Some(line) = &self.look {
            say(format!("Look into the database from another terminal: {line}"));
        }
        say("Live edits begin; one line for each epoch.");
        let (sims, rate) = (self.sims.clone(), self.edits_per_second);
        tokio::spawn(async move {
            for sim in sims.iter().cycle().take_while(|_| rate > 0) {
                tokio::time::sleep(Duration::from_secs(1) / rate).await;
                if sim.edit(1).is_err() {
                    break;
                }
            }
        });
        let (stop, how_long) = (self.stop.clone(), self.how_long);
        tokio::spawn(async move {
            tokio::time::sleep(how_long).await;
            stop.send_replace(true);
        });
    }
}

/// A small table of figures, and how to look further.
async fn summarize(config: &Config, cluster: Option<&PrivatePostgres>) -> Result<()> {
    let plan = compile(config, &LocationTree::default(), &Interner::default())?;
    let headlines = sink::headlines(&config.sink, plan.catalog()).await?;
    say("");
    say(format!("{:<12} {:<10} {:<11} {:>10}  indicator", "code", "period", "from", "value"));
    for Headline { indicator, title, period_type, period_start, value } in &headlines {
        let from = period_start.as_deref().unwrap_or("");
        say(format!("{indicator:<12} {period_type:<10} {from:<11} {value:>10}  {title}"));
    }
    // Without a person at the keyboard the cluster is gone before anybody could look.
    let is_watched = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let Some(cluster) = cluster.filter(|_| is_watched) else { return Ok(()) };
    say("");
    say("Look for yourself, in another terminal:");
    say(format!("  {}", cluster.psql_line()));
    say("  SET search_path = tonle; TABLE data_dictionary; TABLE sync_status;");
    say(
        "  SELECT * FROM indicator_values WHERE indicator = 'CM-03' AND instance = 'all' LIMIT 20;",
    );
    write!(std::io::stdout().lock(), "Press Enter to stop Postgres and remove everything. ").ok();
    std::io::stdout().flush().ok();
    std::io::stdin().read_line(&mut String::new()).ok();
    Ok(())
}

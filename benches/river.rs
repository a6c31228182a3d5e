//! What the river costs: first load, small and large changes, restart; each figure with its floor beside it.
//!
//! `cargo bench --bench river -- --cases 1000000` prints tables; `benches/README.md` keeps the last figures.
//! Everything is real: the binary reads a file of invented cases, a private Postgres takes the rows.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod durable;
mod floors;
mod kinds;
mod machine;
mod steady;
mod world;

use clap::Parser;

use world::{Pack, World};

/// Measures the river.
#[derive(Parser)]
struct Args {
    /// How many cases.
    #[arg(long, default_value_t = 100_000)]
    cases: u64,
    /// Worker threads of the dataflow.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Which packs: `five` (five indicators, indicator table only), `five-rows` (the same with the cases and
    /// services tables), `first` (the first nine indicators of cp-core), `core` (cp-core as shipped), `core-values`
    /// (the same without its tables of rows).
    #[arg(long, value_delimiter = ',', default_values = ["five", "five-rows", "core"])]
    packs: Vec<Pack>,
    /// Also what each kind of indicator of cp-core costs, one indicator after the other.
    #[arg(long)]
    kinds: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    println!("{}", machine::describe());
    for pack in args.packs {
        let world = World::new(pack, args.cases, args.workers);
        println!("\n## {} cases, {}, {} worker(s)\n", args.cases, pack.describe(), args.workers);
        println!("| what | measured | floor |\n|---|---|---|");
        world.first_load();
        steady::measure(&world);
        if args.kinds && pack.is_core() {
            kinds::measure(&world);
        }
    }
}

/// One line of a table.
fn row(what: &str, measured: &str, floor: &str) {
    println!("| {what} | {measured} | {floor} |");
}

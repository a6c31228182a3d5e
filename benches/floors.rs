//! The least work any program must do, measured in the same run.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;

use crate::world::World;

/// Seconds to parse every line of a file and keep nothing, on one core.
pub(crate) fn parse(file: &Path) -> f64 {
    let begun = Instant::now();
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file).expect("it was written"));
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).expect("it can be read") > 0 {
        serde_json::from_slice::<IgnoredAny>(&line).expect("it is JSON");
        line.clear();
    }
    begun.elapsed().as_secs_f64()
}

/// Seconds to COPY the rows that were written into tables with the same columns and keys.
pub(crate) fn copy(world: &World) -> f64 {
    let tables = world.ask(
        "SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'tonle'
         AND tablename IN ('indicator_values', 'changes', 'cases', 'services')",
    );
    // Postgres reads and writes the files itself, so they must be where it may.
    let place = world.ask("SHOW data_directory");
    let mut seconds = 0.0;
    for table in tables.split_whitespace() {
        // A generated column cannot be copied in: the floor keeps it as a plain one.
        world.ask(&format!(
            "CREATE SCHEMA IF NOT EXISTS floor;
             CREATE TABLE floor.{table} (LIKE tonle.{table} INCLUDING INDEXES);
             COPY (SELECT * FROM tonle.{table}) TO '{place}/floor.copy' (FORMAT binary)"
        ));
        let begun = Instant::now();
        world.ask(&format!("COPY floor.{table} FROM '{place}/floor.copy' (FORMAT binary)"));
        seconds += begun.elapsed().as_secs_f64();
        world.ask(&format!("DROP TABLE floor.{table}"));
    }
    seconds
}

/// Median time of a bare one-row `UPDATE … COMMIT`.
pub(crate) async fn bare_commit(url: &str) -> Duration {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("Postgres runs");
    tokio::spawn(connection);
    let setup = "CREATE TABLE IF NOT EXISTS public.bare AS SELECT 1 AS id, 0 AS n";
    client.batch_execute(setup).await.expect("a table is made");
    let statement =
        client.prepare("UPDATE public.bare SET n = n + 1 WHERE id = 1").await.expect("it is sound");
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        client.execute(&statement, &[]).await.expect("it is committed");
        times.push(begun.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

/// Seconds to read every byte of the files of a directory.
pub(crate) fn read_files(directory: &Path) -> f64 {
    let begun = Instant::now();
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        fs::read(entry.path()).ok();
    }
    begun.elapsed().as_secs_f64()
}
